"""The matrix of `compare.py`: what each line trains, as data.

A line differs in what it asks about from the reference: `nested`, trained all at once,
the loss on all levels, the cosine schedule shifted by the ratio of the levels.
"""

import dataclasses
import json
import pathlib

ARMS = ("plain", "cascade", "nested", "dense", "residual")
REGIMES = ("all_at_once", "progressive", "mixed")
LOSSES = ("all", "largest")
SCHEDULES = ("cosine", "log_snr_cosine", "sigmoid", "flow")


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the matrix; each of its seeds is a run.

    Args:
        name: str. Names folders and rows, and may have no `/`.
        question: str. Heading under which the report compares it with the reference.
        arm: str. `"plain"` (a UNet at the target size), `"cascade"` (of two models),
            `"nested"`, `"dense"` (a UNet with dense skips) or `"residual"` (the layers
            of the nest as one level); see `compare_networks`.
        sum_levels: bool. Whether the prediction of a smaller picture, enlarged, is
            added to that of the larger one; `"plain"` and `"dense"` have none.
        regime: str. `"all_at_once"`; `"progressive"`, with half the FLOPs on the inner
            level alone; `"mixed"`, the same with half of each later batch at the inner
            level.
        loss: str. `"all"` levels, or the `"largest"` alone.
        schedule: str. Of noise; `"cosine"` is the squared cosine of Nichol and
            Dhariwal, `"log_snr_cosine"` the official code's other one, and `"flow"` has
            logit-normal timesteps and the loss on v.
        shift_power: float. See `keras_mdm.NoiseSchedule`.
    """

    name: str
    question: str
    arm: str = "nested"
    sum_levels: bool = True
    regime: str = "all_at_once"
    loss: str = "all"
    schedule: str = "cosine"
    shift_power: float = 1.0

    def __post_init__(self):
        for field, known in (
            ("arm", ARMS),
            ("regime", REGIMES),
            ("loss", LOSSES),
            ("schedule", SCHEDULES),
        ):
            self._check(field, getattr(self, field) in known, f"one of {known}")
        self._check("name", self.name and "/" not in self.name, "a name of a folder")
        self._check("shift_power", 0 <= self.shift_power <= 4, "from 0 to 4")
        several = self.arm == "nested"
        for field, usual in (("regime", "all_at_once"), ("loss", "all")):
            good = several or getattr(self, field) == usual
            self._check(field, good, f"{usual!r} for arm {self.arm!r}, of one level")

    def _check(self, field, good, right):
        if not good:
            raise ValueError(
                f"line {self.name!r} of the matrix: `{field}` must be {right}. "
                f"Received: {field}={getattr(self, field)!r}"
            )


REFERENCE = "nested"

MATRIX = (
    Line("nested", "architecture"),
    Line("plain", "architecture", arm="plain"),
    Line("cascade", "architecture", arm="cascade"),
    Line("progressive", "regime", regime="progressive"),
    Line("largest", "loss", loss="largest"),
    Line("shift_0", "shift", shift_power=0.0),
    Line("shift_2", "shift", shift_power=2.0),
    Line("flow", "schedule", schedule="flow"),
    Line("mixed", "regime", regime="mixed"),
    Line("residual", "architecture", arm="residual"),
    Line("dense", "architecture", arm="dense"),
    Line("sigmoid", "schedule", schedule="sigmoid"),
    Line("log_snr_cosine", "schedule", schedule="log_snr_cosine"),
    # At 2, noise of the larger level averages to that of the smaller one.
    Line("inner_ahead", "shift", shift_power=4.0),
    Line("no_sum", "architecture", sum_levels=False),
)


def read_matrix(path=None, names=None):
    """The lines to run, most useful first.

    Args:
        path: Optional path of a JSON file: a list of dicts of `Line`'s arguments.
        names: Optional sequence of str: only these lines.

    Returns:
        Tuple of `Line`.

    Raises:
        ValueError: if the file or a line is wrong, or a name is unknown or twice there.
    """
    lines = MATRIX if path is None else _read(pathlib.Path(path))
    known = [line.name for line in lines]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise ValueError(f"names of the matrix's lines must differ. Twice: {twice}")
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"`--lines` must be among {known}. Received: {unknown}")
    return tuple(line for line in lines if names is None or line.name in names)


def _read(path):
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} must be a list of lines. Received: {rows!r}")
    lines = []
    for number, row in enumerate(rows, 1):
        try:
            lines.append(Line(**row))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number} of the list: {error}") from error
    return lines
