"""The report of `compare.py`: tables with intervals and plots, from its CSV files."""

import math
import statistics

import compare_matrix
from compare_files import read_csv
from scipy import stats
from shared import agg_pyplot

from keras_mdm import files

# What is measured, whether less is better, and how it is called.
MEASURES = {
    "kernel_judge": (True, "kernel, judge"),
    "frechet_judge": (True, "Frechet, judge"),
    "kernel_random": (True, "kernel, random"),
    "frechet_random": (True, "Frechet, random"),
    "accuracy": (False, "class accuracy"),
    "density": (False, "density"),
    "coverage": (False, "coverage"),
    "nearer_to_train": (True, "nearer to train"),
}
CONFIDENCE = 0.95


def interval(values):
    """Mean and half the width of its 95% interval by Student's t; of one value, nan."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return mean, float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error


def paired(rows, reference, measure):
    """Interval of a line's differences from the reference, seed by seed; or `None`."""
    other = {row["seed"]: float(row[measure]) for row in reference}
    seeds = [row for row in rows if row["seed"] in other]
    if len(seeds) < 2:
        return None
    return interval([float(row[measure]) - other[row["seed"]] for row in seeds])


def verdict(difference, less_is_better):
    """`"better"`, `"worse"`, or `"open"` where the interval has zero in it."""
    if difference is None or math.isnan(difference[1]):
        return "open"
    mean, half = difference
    if abs(mean) <= half:
        return "open"
    return "better" if (mean < 0) == less_is_better else "worse"


def write(folder):
    """Writes `report.md` and plots beside the CSV files of a folder.

    Raises:
        FileNotFoundError: if no run is finished there.
    """
    rows, bounds = read_csv(folder / "runs.csv"), read_csv(folder / "bounds.csv")
    if not rows:
        raise FileNotFoundError(
            f"{folder} has no runs.csv: no run of compare.py is finished there."
        )
    text = [
        "# Report of tools/compare.py",
        f"Means over seeds, with {CONFIDENCE:.0%} intervals by Student's t. "
        "Differences from `nested` are taken seed by seed; *open* is one whose "
        "interval has zero in it, or that has a single seed.",
    ]
    gradients = read_csv(folder / "gradients.csv")
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        text += _tables(name, of_set, [b for b in bounds if b["set"] == name])
        _plot_quality(folder / f"quality_{name}.png", name, of_set)
        text.append(f"![Quality and cost of {name}](quality_{name}.png)")
        for kind, x, y, labels in (
            ("noise_levels", "log_snr", "loss", ("log-SNR", "loss")),
            ("gradients", "step", "norm", ("step", "gradient norm")),
        ):
            found = [r for r in read_csv(folder / f"{kind}.csv") if r["set"] == name]
            if found:
                path = folder / f"{kind}_{name}.png"
                _plot_levels(path, name, found, x, y, labels)
                text.append(f"![{kind} of {name}]({kind}_{name}.png)")
        text += _norms([row for row in gradients if row["set"] == name])
    files.write_text(folder / "report.md", "\n\n".join(text) + "\n")


def _last(rows, line):
    """Rows at the end of training."""
    return [r for r in rows if r["line"] == line and float(r["share"]) > 1 - 1e-6]


def _tables(name, rows, bounds):
    questions = {line.name: line.question for line in compare_matrix.MATRIX}
    known = list(questions)
    lines = list(dict.fromkeys(row["line"] for row in rows))
    lines.sort(key=lambda line: known.index(line) if line in known else len(known))
    titles = [title for _, title in MEASURES.values()]
    table = [["", "seeds", *titles]]
    for row in bounds:
        table.append([row["pictures"], "", *(f"{float(row[m]):.3g}" for m in MEASURES)])
    differences = [["", "asks about", *titles]]
    reference = _last(rows, compare_matrix.REFERENCE)
    for line in lines:
        last = _last(rows, line)
        found = {m: interval([float(r[m]) for r in last]) for m in MEASURES}
        table.append([f"`{line}`", len(last), *map(_written, found.values())])
        if line != compare_matrix.REFERENCE and reference:
            row = [f"`{line}`", questions.get(line, "")]
            for measure, (less, _) in MEASURES.items():
                found = paired(last, reference, measure)
                what = verdict(found, less)
                row.append(f"{_written(found)} {what}" if found else what)
            differences.append(row)
    missing = [line for line in known if line not in lines]
    parts = [f"## {name}", _markdown(table)]
    if len(differences) > 1:
        parts += ["Difference from `nested`:", _markdown(differences)]
    if missing:
        parts.append(f"Not run: {', '.join(f'`{line}`' for line in missing)}.")
    return parts


def _norms(rows):
    """Table of the gradient norm of each level, over the later half of its steps."""
    runs = {}
    for row in rows:
        key = row["line"], row["level"]
        steps = runs.setdefault(key, {}).setdefault(row["seed"], [])
        steps.append((int(row["step"]), float(row["norm"])))
    table = [["", "level", "gradient norm", "its variance"]]
    for (line, level), seeds in runs.items():
        late = []
        for steps in seeds.values():
            half = (min(steps)[0] + max(steps)[0]) / 2
            late.append([norm for step, norm in steps if step >= half])
        means = interval([statistics.fmean(norms) for norms in late])
        variances = interval([statistics.pvariance(norms) for norms in late])
        table.append([f"`{line}`", level, _written(means), _written(variances)])
    if len(table) == 1:
        return []
    told = (
        "Gradient norms of each level over the later half of its steps, and their "
        "variance from row to row of a run; a row is a mean of some steps."
    )
    return [told, _markdown(table)]


def _written(value):
    mean, half = value
    return f"{mean:.3g}" if math.isnan(half) else f"{mean:.3g} ± {half:.2g}"


def _markdown(rows):
    rows = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([rows[0], "|" + "---|" * (rows[0].count("|") - 1), *rows[1:]])


def _save(figure, path):
    with files.whole_file(path) as temporary:
        figure.savefig(temporary, dpi=80)
    agg_pyplot().close(figure)


def _plot_quality(path, name, rows):
    """Kernel distance against FLOPs and against CPU seconds, a curve for each line."""
    figure, axes = agg_pyplot().subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for line in dict.fromkeys(row["line"] for row in rows):
        points = {}
        for row in rows:
            if row["line"] == line:
                points.setdefault(round(float(row["share"]), 2), []).append(row)
        for axis, cost, unit in zip(
            axes, ("flops", "cpu_seconds"), (1e12, 1.0), strict=True
        ):
            x = [
                statistics.fmean([float(r[cost]) / unit for r in found])
                for found in points.values()
            ]
            y = [
                interval([float(r["kernel_judge"]) for r in found])
                for found in points.values()
            ]
            bars = [0.0 if math.isnan(half) else half for _, half in y]
            means = [mean for mean, _ in y]
            axis.errorbar(x, means, bars, marker="o", capsize=3, label=line)
    for axis, title in zip(axes, ("training TFLOPs", "CPU seconds"), strict=True):
        axis.set(xlabel=title, ylabel="kernel distance, judge", title=name)
    axes[1].legend(fontsize=7)
    _save(figure, path)


def _plot_levels(path, name, rows, x, y, labels):
    """Means of column `y` against `x`, of each level of each line."""
    figure, axis = agg_pyplot().subplots(figsize=(8, 4.5), layout="constrained")
    for key in dict.fromkeys((row["line"], row["level"]) for row in rows):
        points = {}
        for row in rows:
            if (row["line"], row["level"]) == key:
                points.setdefault(float(row[x]), []).append(float(row[y]))
        means = [statistics.fmean(points[place]) for place in sorted(points)]
        label = f"{key[0]}, {key[1]} px"
        axis.plot(sorted(points), means, marker=".", label=label)
    axis.set(xlabel=labels[0], ylabel=labels[1], yscale="log", title=name)
    axis.legend(fontsize=7)
    _save(figure, path)
