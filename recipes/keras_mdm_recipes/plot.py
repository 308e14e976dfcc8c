"""The curves of a run."""

import csv


def read_rows(path):
    """Rows of a CSV file of a run as dicts, or none if it is not there."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


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
