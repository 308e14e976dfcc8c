"""The planner: memory by hand, and beside what accelerators' compilers planned."""

import argparse
import pathlib

import keras
import pytest
from helpers import tiny_mdm, tiny_nest
from released import RELEASED, SMALL_NESTED

import keras_mdm
from keras_mdm.convert.ml_mdm import network_from_config

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="the tool plans with JAX"
    ),
]

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
GIB = 2**30


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def memory_of(function, *shapes):
    import jax
    import plan_memory

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return plan_memory.planned_memory(jax.jit(function).trace(*shapes).jaxpr)


def test_memory_of_products_by_hand():
    """A chain of three products keeps its inputs for the backward pass, and no more."""
    import jax
    from jax import numpy as jnp

    def step(x, *weights):
        def loss(weights):
            h = x
            for weight in weights:
                h = jnp.tanh(h @ weight) * 2.0 + 1.0
            return jnp.sum(h)

        return jax.grad(loss)(weights)

    rows, width = 1024, 32
    found = memory_of(step, (rows, width), *[(width, width)] * 3)
    one = rows * width * 4
    # Three results of products, and the inputs that are made of the first two.
    assert found.activations == pytest.approx(5 * one, rel=0.01)
    assert 0 <= found.temporary - found.activations <= 2 * one


def test_memory_of_what_is_computed_on_the_way():
    from jax import numpy as jnp

    shape = (512, 64)
    assert memory_of(lambda x: jnp.exp(x * 2.0) + 1.0, shape).temporary == 0
    assert memory_of(lambda x: jnp.sum(jnp.exp(x) - x), shape).temporary == 0
    # One buffer of the product's input, a function of x, and one of its result.
    found = memory_of(lambda x, w: jnp.sum(jnp.exp(x) @ w), shape, (64, 64))
    assert found.temporary == 2 * 512 * 64 * 4


@pytest.fixture(scope="module")
def nest():
    return tiny_mdm(network=tiny_nest(2, resolution=8), ema_momentum=0.9)


def on_devices(mdm, devices=1, **stage):
    from plan_stage import StageOnDevices

    stage = {"steps": 10, "batch_size": 32, **stage}
    return StageOnDevices(mdm, keras_mdm.Stage(mdm.network.level, **stage), devices)


def test_state_and_activations(nest):
    from plan_stage import Setting

    part = on_devices(nest)
    plain = part.need(Setting())
    count = nest.network.count_params()
    assert plain.weights == plain.averages == 4 * count
    # Two moments, and few numbers.
    assert 8 * count <= plain.optimizer < 8 * count + 100
    again = part.need(Setting(remat=nest.network.levels))
    assert again.activations < 0.8 * plain.activations
    half = part.need(Setting(accumulate=2))
    assert half.activations == pytest.approx(plain.activations / 2, rel=0.1)
    # Accumulated gradients are one more for each parameter.
    assert half.optimizer - plain.optimizer == pytest.approx(4 * count, abs=100)


def test_settings_are_tried_until_one_fits(nest, monkeypatch):
    """With needs by a formula: 100 for the state, 10 a picture, 4 a picture again."""
    from plan_stage import Need, StageOnDevices

    asked = []

    def need(part, setting):
        asked.append(str(setting))
        pictures = part.pictures // setting.accumulate
        state = 100 // (part.devices if setting.fsdp else 1)
        again = len(setting.remat)
        return Need(state, 0, 0, (10 - 3 * again) * pictures, pictures)

    monkeypatch.setattr(StageOnDevices, "need", need)
    part = on_devices(nest, devices=2, batch_size=64)
    assert [str(setting) for setting, _ in part.tried(1000)] == ["plain"]
    # Half the batch would need 276, a quarter fits.
    chosen, last = list(part.tried(200))[-1]
    assert str(chosen) == "accumulate=4" and last.total == 188
    # No less than the state fits into its half: divided, and its activations again.
    chosen, last = list(part.tried(90))[-1]
    assert chosen.fsdp and chosen.remat == nest.network.levels and last.total == 90
    asked.clear()
    tried = list(part.tried(40))
    assert tried and all(need.total > 40 for _, need in tried)
    # What can't fit by proportion is left out.
    assert "plain" in asked and "accumulate=2" not in asked
    # But for what comes closest, where nothing fits: a picture at a time.
    assert min(need.total for _, need in part.tried(4)) == 55


def test_flops_of_a_step(nest):
    from plan_stage import Setting

    part = on_devices(nest, mixed=None)
    inner, outer = (part.flops()[level] for level in nest.network.levels[::-1])
    assert part.step_flops(Setting()) == 32 * 3 * (inner + outer)
    again = Setting(remat=nest.network.levels[:1])
    assert part.step_flops(again) == 32 * (3 * inner + 4 * outer)
    frozen = on_devices(nest, freeze_inner=True)
    assert frozen.step_flops(Setting()) == 32 * (2 * inner + 3 * outer)
    mixed = dict(zip(nest.network.levels, (1, 3), strict=True))
    mixed = on_devices(nest, mixed=mixed)
    assert mixed.step_flops(Setting()) == 3 * (32 * inner + 8 * outer)
    pixels = nest.network.resolution**2
    assert part.sample_bytes() == nest.network.image_channels * pixels + 4  # A label.


def test_fsdp_divides_the_state():
    from plan_stage import Setting

    mdm = tiny_mdm(network=keras_mdm.UNet(8, (256,), 1), ema_momentum=None)
    part = on_devices(mdm, devices=4)
    whole, divided = part.need(Setting()), part.need(Setting(fsdp=True))
    assert whole.averages == 0
    # All but the small ones: a quarter and a little more.
    assert 0.25 * whole.weights < divided.weights < 0.3 * whole.weights
    assert divided.activations == whole.activations


@pytest.mark.parametrize(
    ("config", "pixels", "text_size", "batch", "planned"),
    [
        # What the H100's compiler planned (jax 0.10.2, bfloat16), in GiB.
        pytest.param(SMALL_NESTED, 64, 512, 32, 1.02, id="small_nested"),
        pytest.param(RELEASED["256"]["unet_config"], 256, 2048, 8, 7.7, id="256"),
    ],
)
def test_memory_beside_the_compiler_of_an_h100(
    monkeypatch, config, pixels, text_size, batch, planned
):
    """Within 15 %, the road of a GPU being taken as `compile_for.py` does."""
    import compile_targets
    import jax
    import jax._src.cudnn.fused_attention_stablehlo as fused
    from plan_stage import Setting, weightless

    checks = ("compute_capability", "cudnn_version")
    names = [(jax, "default_backend"), (fused, "is_cuda_compute_capability_equal")]
    names += [(fused, f"check_{check}") for check in checks]
    for module, attribute in names:  # So that they are put back.
        monkeypatch.setattr(module, attribute, getattr(module, attribute))
    compile_targets.pretend("h100")
    with weightless():
        network = network_from_config(config, pixels, text_size, dtype="mixed_bfloat16")
        mdm = tiny_mdm(network=network)
    need = on_devices(mdm, batch_size=batch).need(Setting())
    assert need.activations + need.temporary == pytest.approx(planned * GIB, rel=0.15)


def arguments(**changes):
    given = {"preset": "p", "device": "h100", "devices": 1, "batch": None, "set": []}
    given |= {"share": 0.3, "fill": 0.9, "compile": False}
    return argparse.Namespace(**{**given, **changes})


def test_runs_are_those_of_the_recipes():
    import plan

    mdm, stages = plan.make_run(arguments(preset="mdm_base_256", batch=["64", "8"]))
    assert [stage.resolution for stage in stages] == [64, 256]
    assert [stage.batch_size for stage in stages] == [64, 8]
    assert {stage.steps for stage in stages} == {100_000}
    assert mdm.network.dtype_policy.name == "mixed_bfloat16"
    changed = ["stage.freeze_inner=true", "model.dtype=float32", "stage.steps=7"]
    mdm, stages = plan.make_run(arguments(preset="mdm_tiny_64", set=changed))
    assert [stage.freeze_inner for stage in stages] == [False, True, True]
    assert {stage.steps for stage in stages} == {7}
    assert mdm.network.dtype_policy.name == "float32"


def test_a_plan_is_printed(nest, capsys):
    from plan_report import StageReport
    from plan_stage import Need, Setting

    part = on_devices(nest)
    fits, large = Need(1, 1, 2, 3, 1), Need(1, 1, 2, 60, 9)
    chosen = Setting(accumulate=2, remat=nest.network.levels[:1])
    report = StageReport(part, [(Setting(), large), (chosen, fits)], 10)
    report.print_all(1, arguments(), 989.0, None)
    printed = capsys.readouterr().out
    for words in (
        "too much: plain",
        f"fits: accumulate=2 remat={nest.network.level}",
        "stage.batch_size=16 stage.accumulate=2 stage.steps=20 model.remat=16",
        "hours at 30% of the peak",
        "MB/s as arrays",
    ):
        assert words in printed
    StageReport(part, [(Setting(), fits)], 10).print_all(2, arguments(), None, None)
    assert "give a device by its name" in capsys.readouterr().out
    with pytest.raises(ValueError, match="fits no setting: closest is plain"):
        StageReport(part, [(Setting(), large)], 10).print_all(1, arguments(), 1.0, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "h200"}, "--device must be one of h100.*'24 GiB'.*'h200'"),
        ({"device": "0 GiB"}, "--device must be one of"),
        ({"devices": 0}, "--devices must be at least 1"),
        ({"share": 1.5}, "--share must be above 0 and at most 1"),
        ({"fill": 0.0}, "--fill must be above 0"),
    ],
)
def test_wrong_flags_are_told(changes, words):
    import plan

    with pytest.raises(ValueError, match=words):
        plan.plan_stages(arguments(**changes))
    assert plan.find_device("24 GiB") == (24.0, None)
    assert plan.find_device("rtx4090") == (24, 165.2)


def test_a_batch_that_devices_do_not_divide(nest):
    with pytest.raises(ValueError, match="multiple of the 5 devices, such as 35.*32"):
        on_devices(nest, devices=5)


def test_growth(nest):
    import plan_growth

    larger = plan_growth.enlarged(nest, 2 * nest.network.resolution)
    levels = nest.network.levels
    assert larger.network.levels == (2 * levels[0], *levels)
    assert larger.network.channels == nest.network.channels
    with pytest.raises(ValueError, match="--largest must be one of"):
        plan_growth.enlarged(nest, 3 * levels[0])
    row = {"resolution": 64, "parameters": 2e6, "own_parameters": 1e6, "flops": 3e9}
    row |= {"own_flops": 2e9, "memory": GIB, "remat": GIB, "state": 2 * GIB}
    assert plan_growth.table([row]).startswith(
        "| 64 | 2.0 M | 1.0 M | 3 | 2 | 1.00 GiB"
    )
