"""The files of `compare.py`: settings, and CSV files that outlive the runs."""

import csv
import dataclasses
import json

from keras_mdm import files

NORM = "gradient_norm_"  # Columns of a level.
NOISE_STEPS = 0.5  # Of a run's steps, the last share in which losses are averaged.


def read_csv(path):
    """List of dicts of str; empty if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path, rows):
    """Writes dicts, whose keys are those of the first, in one step."""
    with files.whole_file(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


class Rows:
    """Rows of a CSV file, one for each share of the FLOPs; a repeated one replaces."""

    def __init__(self, path):
        self.path = path

    def read(self):
        return read_csv(self.path)

    def add(self, row):
        rows = [r for r in self.read() if float(r["share"]) < row["share"] - 1e-9]
        write_csv(self.path, [*rows, row])


def check_settings(output, sets, tasks, lines):
    """Raises a `ValueError` if a folder has other runs by these names; notes them.

    `sets` has sources by name, `tasks` what their lines share.
    """
    now = {
        "settings.json": {
            name: {"source": sets[name], **dataclasses.asdict(task)}
            for name, task in tasks.items()
        },
        "lines.json": {line.name: dataclasses.asdict(line) for line in lines},
    }
    known = {file: _merge(output / file, values) for file, values in now.items()}
    for file, values in known.items():
        files.write_text(output / file, json.dumps(values, indent=1) + "\n")


def _merge(path, now):
    """What a JSON file says by name, with what is new."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, value in now.items():
        if known.setdefault(name, value) != value:
            raise ValueError(
                f"{path} has {name!r} with {known[name]}. Received: {value}. "
                "Take another name or --output."
            )
    return known


def write_bounds(output, set_name, bounds):
    """Writes the measures of real, blurred and noise pictures of a set."""
    rows = [{"set": set_name, "pictures": key, **row} for key, row in bounds.items()]
    path = output / "bounds.csv"
    others = [row for row in read_csv(path) if row["set"] != set_name]
    write_csv(path, [*others, *rows])


def collect(output):
    """Writes the CSV files of all finished runs, which reports are made of."""
    found = sorted((output / "runs").glob("*/rows.json"))
    runs, noise, norms = [], [], []
    for path in found:
        rows = json.loads(path.read_text())
        runs += rows
        place = {key: rows[0][key] for key in ("set", "line", "seed")}
        noise += [place | row for row in _noise_levels(path.parent)]
        norms += [place | row for row in _gradient_norms(path.parent)]
    for name, rows in (("runs", runs), ("noise_levels", noise), ("gradients", norms)):
        if rows:
            write_csv(output / f"{name}.csv", rows)


def _noise_levels(folder):
    """Mean loss of each level and range of log-SNR late in the last stage."""
    rows = read_csv(sorted(folder.glob("noise_levels_*.csv"))[-1])
    last = max(int(row["stage"]) for row in rows)
    rows = [row for row in rows if int(row["stage"]) == last]
    late = NOISE_STEPS * max(int(row["step"]) for row in rows)
    sums = {}
    for row in rows:
        if int(row["step"]) > late:
            key = row["level"], row["log_snr_from"], row["log_snr_to"]
            count = float(row["samples"])
            found = sums.setdefault(key, [0.0, 0.0])
            found[0] += count * float(row["loss"])
            found[1] += count
    return [
        {
            "level": level,
            "log_snr": (float(begin) + float(end)) / 2,
            "loss": f"{total / count:.5g}",
        }
        for (level, begin, end), (total, count) in sums.items()
    ]


def _gradient_norms(folder):
    """Norms of the gradients of each level, over all stages of all models."""
    found, before = [], 0
    for path in sorted(folder.glob("history_*.csv")):
        rows = read_csv(path)
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            step = before + int(row["step"])
            found += [
                {
                    "level": key.removeprefix(NORM),
                    "step": step,
                    "norm": f"{float(value):.5g}",
                }
                for key, value in row.items()
                if key.startswith(NORM) and value
            ]
            if following is None or following["stage"] != row["stage"]:
                before = step
    return found
