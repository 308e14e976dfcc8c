"""The curves of a run."""

import csv


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

    with open(history, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    ends, steps, before = {}, [], 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        steps.append(before + int(row["step"]))
        if following is None or following["stage"] != row["stage"]:
            before = steps[-1]
            ends[row["stage"]] = (row["resolution"], before)
    for key in [key for key in rows[0] if key.startswith("loss_")]:
        points = [
            (step, float(row[key]))
            for step, row in zip(steps, rows, strict=True)
            if row[key]
        ]
        if points:
            marker = "o" if len(points) == 1 else None
            label = f"{key.removeprefix('loss_')} pixels"
            axes.plot(*zip(*points, strict=True), label=label, marker=marker)
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
