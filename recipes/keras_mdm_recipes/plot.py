"""The curves of a run."""

import csv

PLACE = ("stage", "resolution", "step")


def read_rows(path, *columns):
    """Rows of a CSV file of a run as dicts, or none if it is not there.

    Args:
        path: Path.
        *columns: str. Those that it must have, beside those of `PLACE`.

    Raises:
        ValueError: if it is no such file, or damaged. Half a row at its end is left
            out: of a run that was killed.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error
    missing = {*PLACE, *columns} - set(names)
    if names and missing:
        raise ValueError(f"'{path}' lacks the columns {sorted(missing)}.")
    if rows and not _is_row(rows[-1]):
        rows.pop()
    for number, row in enumerate(rows, 1):
        if not _is_row(row):
            raise ValueError(f"'{path}' is damaged in row {number}: {row}")
    return rows


def _is_row(row):
    """Whether a row has a value for each column: a number, or nothing."""
    if None in row or None in row.values():
        return False
    try:
        for name, value in row.items():
            if name not in (*PLACE, "level") and value:
                float(value)
    except ValueError:
        return False
    return row["stage"].isdecimal() and row["step"].isdecimal()


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


def plot_losses(history, path):
    """Draws the loss of each resolution over all stages.

    Args:
        history: Path of `history.csv`.
        path: Path of the PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from keras_mdm.files import whole_file

    rows = read_rows(history)
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
