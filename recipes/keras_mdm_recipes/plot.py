"""The curves of a run."""

import csv
import io
import os
import re
import warnings

_MOST_BYTES = 2**26  # Of a file of rows.
_MOST = 200  # Columns, stages, levels.
_LEVEL = re.compile(r"(\d{1,9}x)?\d{1,9}")
_COUNT = re.compile(r"\d{1,18}")
PLACE = ("stage", "resolution", "step")
_KINDS = {"stage": _COUNT, "step": _COUNT, "resolution": _LEVEL, "level": _LEVEL}


def read_rows(path, needed):
    """Rows of a CSV file of a run as dicts of str, or none if it is not there.

    They have no checksum: what can't be a row, such as half of one, is left out.

    Args:
        path: Path.
        needed: Columns that it must have.

    Raises:
        ValueError: if the file is no such one, or a link out of its folder.
    """
    from keras_mdm.paths import member
    from keras_mdm.text_files import printable, read_text

    if not os.path.lexists(path):
        return []
    text = read_text(member(path.parent, path.name), _MOST_BYTES)
    if not text.strip():
        return []
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"'{printable(path)}' is damaged: {error}") from error
    names = reader.fieldnames
    named = all(re.fullmatch(r"\w+", name) for name in names)
    if not named or len(names) > _MOST or not {*needed} <= {*names}:
        raise ValueError(
            f"'{printable(path)}' is damaged: it must have at most {_MOST} columns, "
            f"with plain names, {needed} among them. Received: {str(names)[:200]}"
        )
    whole = [row for row in rows if _is_whole(row)]
    if len(whole) < len(rows):
        warnings.warn(
            f"{len(rows) - len(whole)} of {len(rows)} rows of '{printable(path)}' are "
            "damaged, and left out.",
            stacklevel=2,
        )
    if any(
        len({row.get(kind) for row in whole}) > _MOST for kind in ("stage", "level")
    ):
        raise ValueError(
            f"'{printable(path)}' has more than {_MOST} stages or levels of one run."
        )
    return whole


def _is_whole(row):
    """Whether a row has a value for each column, of the column's kind."""
    if None in row or None in row.values():
        return False
    return all(
        _KINDS[name].fullmatch(value) if name in _KINDS else _is_number(value)
        for name, value in row.items()
    )


def _is_number(text):
    try:
        return not text or float(text) is not None
    except ValueError:
        return False


def total_steps(rows):
    """Steps of each row since the first stage began."""
    found, before = [], 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        found.append(before + int(row["step"]))
        if following is not None and following["stage"] != row["stage"]:
            before = found[-1]
    return found


def draw_columns(axes, rows, prefix, label=str):
    """Draws the columns whose names begin so, over all steps.

    Args:
        axes: matplotlib's.
        rows: List of dicts, as `read_rows` returns them.
        prefix: str.
        label: Callable from a column's name to what it is called.
    """
    steps = total_steps(rows)
    for key in [key for key in rows[0] if key.startswith(prefix)]:
        points = [
            (step, float(row[key]))
            for step, row in zip(steps, rows, strict=True)
            if row[key]
        ]
        if points:
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), label=label(key), marker=marker)


def agg_pyplot():
    """matplotlib's `pyplot`, set to draw into files alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot_losses(history, path):
    """Draws the loss of each resolution over all stages of a `history.csv`."""
    from keras_mdm.files import whole_file

    pyplot, rows = agg_pyplot(), read_rows(history, PLACE)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    draw_columns(axes, rows, "loss_", lambda key: f"{key[len('loss_') :]} pixels")
    ends = {
        row["stage"]: (row["resolution"], step)
        for row, step in zip(rows, total_steps(rows), strict=True)
    }
    for resolution, end in ends.values():
        axes.axvline(end, color="0.8", linewidth=1, zorder=0)
        axes.annotate(
            f"stage of {resolution} px",
            (end, 0.98),
            xycoords=("data", "axes fraction"),
            # Upright: stages may end close to each other.
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
        )
    axes.set(xlabel="steps", ylabel="mean squared error", yscale="log")
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
