"""tools/compare.py: its matrix, sizes, networks, measures and report."""

import itertools
import json
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

import keras_mdm

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.fixture
def task():
    from compare_arms import Task

    return Task(32, 1, 10, steps=100, batch_size=8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"name": "a", "question": "b", "arm": "unet"}], "`arm` must be one of"),
        ([{"name": "a", "question": "b", "size": 3}], "line 1 of the list.*size"),
        ([{"name": "a", "question": "b"}] * 2, "Twice: \\['a'\\]"),
        (
            [{"name": "a", "question": "b", "arm": "plain", "regime": "mixed"}],
            "`regime` must be 'all_at_once' for arm 'plain'",
        ),
        ({}, "must be a list of lines"),
    ],
)
def test_a_wrong_matrix_is_refused_before_anything_runs(rows, message, tmp_path):
    import compare

    path = tmp_path / "matrix.json"
    path.write_text(json.dumps(rows))
    args = compare.parse_arguments(
        ["--output", str(tmp_path / "out"), "--matrix", str(path)]
    )
    with pytest.raises(ValueError, match=message):
        compare.run(args)
    assert not (tmp_path / "out").exists()


def test_unknown_lines_and_sets_are_refused(tmp_path):
    import compare

    flags = ["--output", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="`--lines` must be among"):
        compare.run(compare.parse_arguments([*flags, "--lines", "nest"]))
    with pytest.raises(ValueError, match="NAME=SOURCE"):
        compare.run(compare.parse_arguments([*flags, "--sets", "folder:a/b"]))


def test_arms_have_the_parameters_and_flops_of_the_reference():
    """Also on sets of 3 channels and 30 classes, which no width was chosen for."""
    import compare_arms
    from compare_matrix import MATRIX

    for line in MATRIX:
        compare_arms.check_size(line, compare_arms.Task(32, 3, 30))


def test_an_arm_of_another_size_is_refused(task, monkeypatch):
    import compare_arms
    from compare_matrix import Line

    monkeypatch.setattr(compare_arms, "PLAIN_WIDTHS", (12, 24, 48))
    compare_arms._size.cache_clear()
    with pytest.raises(ValueError, match="arm 'plain' has .* parameters"):
        compare_arms.check_size(Line("plain", "size", arm="plain"), task)
    compare_arms._size.cache_clear()


@pytest.mark.parametrize("name", ["cascade", "mixed"])
def test_lines_have_the_training_flops_of_the_reference(task, name):
    """Half of a batch of `mixed` skips the outer level."""
    import compare_arms
    from compare_matrix import read_matrix
    from compare_run import part_flops

    (line,) = read_matrix(names=[name])
    parts = compare_arms.build(line, task, seed=0)
    found = sum(map(part_flops, parts))
    (reference,) = compare_arms.build(read_matrix(names=["nested"])[0], task, seed=0)
    assert found == pytest.approx(part_flops(reference), rel=0.01)
    if name == "mixed":
        cost = compare_arms.count_flops(parts[0].mdm.network)
        wanted = 3 * 8 * (0.5 * cost[32] + cost[16])
        assert parts[0].step_flops[1] == pytest.approx(wanted)
        assert parts[0].stages[0].resolution == 16


def test_the_second_model_of_a_cascade_begins_with_the_enlarged_picture(task):
    import compare_arms
    from compare_networks import SmallPicture, SuperResolution

    net = compare_arms._unet(
        task, (4, 4, 4), cls=SuperResolution, conditioner=SmallPicture
    )
    small = np.tile(np.linspace(-1, 1, 16, dtype="float32"), (2, 16, 1))[..., None]
    inputs = {"images": [np.zeros((2, 32, 32, 1), "float32")]}
    inputs |= {"timesteps": np.zeros(2, "int32"), "labels": np.zeros(2, "int32")}
    (found,) = net({**inputs, "small": small})
    # Pixels of twice the number lie a quarter of a pixel beside the small ones.
    steps = np.clip((np.arange(32) - 0.5) / 2, 0, 15) * 2 / 15 - 1
    wanted = np.broadcast_to(steps[:, None], (2, 32, 32, 1))
    np.testing.assert_allclose(ops.convert_to_numpy(found), wanted, atol=1e-5)


def test_dense_skips_reach_the_prediction(task):
    """Four places have nodes (0, 1), (1, 1) and (0, 2); each changes what is said."""
    import compare_arms
    from compare_networks import DenseUNet

    net = compare_arms._unet(task, (4, 4, 4, 4), cls=DenseUNet)
    assert sorted(net.nodes) == ["node_0_1", "node_0_2", "node_1_1"]
    for variable in (
        net.conv_out.kernel,
        *(n.conv_2.kernel for n in net.nodes.values()),
    ):
        variable.assign(keras.random.normal(variable.shape, seed=0))
    for block in net.up_blocks:
        for residual in block.residuals:
            kernel = residual.conv_2.kernel
            kernel.assign(keras.random.normal(kernel.shape, seed=1))
    inputs = {
        "images": [keras.random.normal((1, 32, 32, 1), seed=2)],
        "timesteps": np.zeros(1, "int32"),
        "labels": np.zeros(1, "int32"),
    }
    (before,) = net(inputs)
    for node in net.nodes.values():
        kept = ops.copy(node.conv_2.kernel)
        node.conv_2.kernel.assign(ops.zeros_like(kept))
        (after,) = net(inputs)
        assert float(ops.max(ops.abs(after - before))) > 1e-3
        node.conv_2.kernel.assign(kept)


def test_one_level_is_as_noisy_as_the_largest_level_of_the_nest(task):
    import compare_arms
    from compare_matrix import read_matrix

    plain, nested = (
        compare_arms.build(read_matrix(names=[name])[0], task, 0)[0].mdm
        for name in ("plain", "nested")
    )
    alpha, sigma = plain.schedule.levels()
    wanted = nested.schedule.levels(ratio=2)
    np.testing.assert_allclose(alpha, wanted[0], atol=1e-5)
    np.testing.assert_allclose(sigma, wanted[1], atol=1e-5)


def test_density_and_coverage_by_hand():
    from compare_quality import density_and_coverage

    # On a line, with one neighbor: balls of radius 1 around 0 and 1, 4 around 5.
    real = np.array([[0.0], [1.0], [5.0]])
    drawn = np.array([[0.5], [5.5], [30.0]])
    # .5 lies in two balls, 5.5 in the one around 5, 30 in none.
    assert density_and_coverage(real, drawn, 1) == (1.0, 1.0)
    assert density_and_coverage(real, drawn[1:], 1) == (0.5, pytest.approx(1 / 3))
    with pytest.raises(ValueError, match="need more than 5 real"):
        density_and_coverage(real, drawn)


def test_too_few_pictures_for_a_distance():
    from compare_quality import check_count

    check_count(np.zeros((65, 64)), np.zeros((100, 64)))
    with pytest.raises(ValueError, match="at least 65 pictures.*64 drawn, 100 real"):
        check_count(np.zeros((64, 64)), np.zeros((100, 64)))


def test_batches_are_the_same_for_a_seed_and_averaged_down(task):
    from compare_arms import Part
    from compare_quality import Pictures
    from compare_run import batches

    shown = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype("uint8")
    pictures = Pictures(shown, np.arange(20), shown, np.arange(20), 20)
    stage = keras_mdm.Stage(2, steps=3, batch_size=8)
    part = Part(None, (stage,), (1,))
    first, again = (
        list(itertools.islice(batches(pictures, stage, part, seed), 5))
        for seed in (1, 1)
    )
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])
    labels = first[0]["labels"]
    corner = shown[labels, :2, :2, 0].mean(axis=(1, 2)) / 127.5 - 1
    np.testing.assert_allclose(first[0]["images"][:, 0, 0, 0], corner, atol=1e-6)
    assert len(set(labels) | set(first[1]["labels"])) == 16


def test_seconds_and_flops_go_on_after_an_interruption(tmp_path):
    """Two epochs, a new meter as after a resume, and one epoch of the next stage."""
    from compare_arms import Part
    from compare_run import Meter

    stages = (keras_mdm.Stage(16, steps=20, steps_per_epoch=10),)
    stages += (keras_mdm.Stage(32, steps=10, steps_per_epoch=5),)

    class Whole:
        network = type("Network", (), {"resolution": 32})

    part = Part(Whole, stages, (1, 8))

    def meter():
        return Meter(tmp_path / "spent.csv", part, before=0.0, total=100.0)

    first = meter()
    first.on_stage_begin(0, stages[0])
    for epoch in range(2):
        first.on_epoch_begin(epoch)
        first.on_epoch_end(epoch)
    assert first.flops == 20
    spent, measured = first.seconds(), []
    second = meter()
    second.measure = lambda *values: measured.append(values)
    second.on_stage_begin(1, stages[1])
    second.on_epoch_begin(0)
    second.began -= 5.0
    second.on_epoch_end(0)
    assert second.flops == 20 + 5 * 8 and second.seconds() >= spent + 5.0
    # Half of the FLOPs were passed, in the stage of the largest level.
    assert measured == [(60.0, second.seconds())]


def test_intervals_and_verdicts():
    """By a table of Student's t: 4.303 at two degrees of freedom."""
    from compare_report import interval, paired, verdict

    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.303 / np.sqrt(3), rel=1e-3)
    reference = [{"seed": str(seed), "kernel": seed * 10.0} for seed in range(3)]
    rows = [{"seed": str(seed), "kernel": seed * 10.0 - 1} for seed in range(3)]
    assert paired(rows, reference, "kernel") == (-1.0, 0.0)
    assert paired(rows[:1], reference, "kernel") is None
    assert verdict((-1.0, 0.5), True) == "better"
    assert verdict((-1.0, 0.5), False) == "worse"
    assert verdict((-1.0, 2.0), True) == verdict(None, True) == "open"


def test_report_is_made_of_the_files_alone(tmp_path):
    import compare
    from compare_files import write_csv
    from compare_report import MEASURES

    with pytest.raises(SystemExit, match="no runs.csv"):
        compare.main(["--report", str(tmp_path)])
    place = {"set": "digits", "parameters": 1}
    write_csv(
        tmp_path / "runs.csv",
        [
            {**place, "line": line, "seed": seed, "share": share}
            | {"flops": share * 1e12, "cpu_seconds": 9.0}
            | dict.fromkeys(MEASURES, worse + 0.1 * seed - share)
            for line, worse in (("nested", 1.0), ("plain", 2.0))
            for seed in range(3)
            for share in (0.5, 1.0)
        ],
    )
    bounds = {"set": "digits", "pictures": "noise", **dict.fromkeys(MEASURES, 9.0)}
    write_csv(tmp_path / "bounds.csv", [bounds])
    compare.main(["--report", str(tmp_path)])
    text = (tmp_path / "report.md").read_text()
    assert "| `nested` | 3 | 0.1 ± 0.25 |" in text and "| noise |  | 9 |" in text
    assert "| `plain` | architecture | 1 ± " in text and "Not run: `cascade`" in text
    assert (tmp_path / "quality_digits.png").stat().st_size > 1000


def test_a_set_with_too_few_pictures_is_refused_as_it_is_read(tmp_path):
    from compare_quality import read_set
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(20):
            picture = np.full((16, 16, 3), 10 * number, "uint8")
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    with pytest.raises(ValueError, match="needs at least 65 pictures of each set"):
        read_set(f"folder:{tmp_path}", 16)
