"""`keras-mdm report RUN`: one page about a training run, which needs no network.

Training writes it at its end; this writes it anew, of a run that is not finished too.
"""

import base64
import dataclasses
import html
import io
import pathlib
import re
import warnings

from keras_mdm_recipes import command_line, start
from keras_mdm_recipes.plot import PLACE, agg_pyplot, draw_columns, read_rows
from keras_mdm_recipes.settings import Settings

_MOST_GRIDS = 40
_MOST_BYTES = 2**28  # Of all pictures of a page.
_LEVELS = ("stage", "step", "level", "log_snr_from", "log_snr_to", "loss")
_TYPES = {".png": "image/png", ".webp": "image/webp"}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem .1rem 0;
       text-align: left; vertical-align: top; } td { overflow-wrap: anywhere; }
img { max-width: 100%; } figure { display: inline-block; margin: 0 1rem 1rem 0;
       vertical-align: top; } figcaption { color: #666; font-size: .85em; }
"""


def shown(value):
    """A value as text in HTML, whatever a name of a file may hold."""
    from keras_mdm.text_files import printable

    return html.escape(printable(value))


def figure_of(draw):
    """A figure as an `img` element; `draw` is called with matplotlib's axes."""
    pyplot = agg_pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return image(buffer.getvalue(), "image/png")


def image(data, kind):
    """An `img` element that holds its bytes."""
    return f'<img src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def curves(rows, prefix, label, log=False):
    """A figure with the columns whose names begin so, over all steps."""

    def draw(axes):
        draw_columns(axes, rows, prefix)
        axes.set(xlabel="steps", ylabel=label, yscale="log" if log else "linear")
        axes.legend(fontsize=8)

    return figure_of(draw)


def noise_levels(rows):
    """A figure with the loss by log-SNR, at the end of each stage."""
    last = {}
    for row in rows:
        last[row["stage"]] = row["step"]
    lines = {}
    for row in rows:
        if last[row["stage"]] == row["step"]:
            name = f"{row['level']} px, end of stage {row['stage']}"
            middle = (float(row["log_snr_from"]) + float(row["log_snr_to"])) / 2
            lines.setdefault(name, []).append((middle, float(row["loss"])))

    def draw(axes):
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), "o-", label=name)
        axes.set(xlabel="log-SNR (clean on the right)", ylabel="loss", yscale="log")
        axes.legend(fontsize=8)

    return figure_of(draw)


def speed(rows):
    """A table with the speed of each stage."""
    names = ("images_per_second", "teraflops", "share_of_peak", "waited_for_data")
    lines = [["stage", "resolution", "steps", *names, "skipped steps"]]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        of = [row for row in rows if row["stage"] == stage]
        means = []
        for name in names:
            values = sorted(float(row[name]) for row in of if row.get(name))
            means.append(f"{values[len(values) // 2]:.4g}" if values else "")
        skipped = sum(float(row.get("skipped") or 0) for row in of)
        last = of[-1]
        lines.append([stage, last["resolution"], last["step"], *means, f"{skipped:g}"])
    return table(lines, head=True)


def table(lines, head=False):
    """A table of texts, which are escaped."""
    rows = []
    for number, line in enumerate(lines):
        tag = "th" if head and not number else "td"
        cells = "".join(f"<{tag}>{shown(cell)}</{tag}>" for cell in line)
        rows.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def flat(tree, name=""):
    """Pairs of key and value of nested dicts, but for what is not set."""
    for key, value in tree.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            yield from flat(value, path)
        elif value is not None:
            yield path, value


def grids(folder):
    """The grids of samples in the order of training, as figures."""

    def order(path):
        found = re.match(r"stage(\d+)_.*?(?:_step(\d+))?$", path.stem)
        place = (int(found[1]), int(found[2] or 10**12)) if found else (10**6, 0)
        return *place, path.stem

    paths = (p for p in folder.glob("stage*") if p.suffix in _TYPES)
    paths = sorted(filter(_is_file, paths), key=order)
    last = _newest(paths[-_MOST_GRIDS:])
    left = len(paths) - len(last)
    more = f"<p>{left} earlier ones are in {shown(folder)}.</p>"
    return (more if left else "") + "".join(figures(last))


def _is_file(path):
    """Whether a picture is a file; if it is anything else, a warning says so."""
    from keras_mdm.text_files import printable

    found = path.is_file()
    if not found:
        warnings.warn(f"'{printable(path)}' is left out: it is no file.", stacklevel=3)
    return found


def _newest(paths):
    """The last of some files, as many as a page has room for."""
    from keras_mdm.paths import member

    sizes = [member(path.parent, path.name).stat().st_size for path in paths]
    while sum(sizes) > _MOST_BYTES:
        del sizes[0]
    return paths[len(paths) - len(sizes) :]


def figures(paths):
    for path in paths:
        picture = image(path.read_bytes(), _TYPES[path.suffix])
        caption = shown(path.stem)
        yield f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def write_report(run):
    """Writes `report.html` into a run folder, and returns its path.

    Raises:
        ValueError: if it is no run folder.
    """
    from keras_mdm import files, paths
    from keras_mdm.text_files import MAX_TEXT, read_text

    run = pathlib.Path(run)
    path = start.config_of(run)
    if not path.is_file():
        raise ValueError(f"there is no run in '{run}' (no config.json).")
    config = start.read_json(path)
    values = command_line.read_config(config.get("recipe"), path)
    versions, parameters = config.get("versions", {}), config.get("parameters")
    about = versions if isinstance(versions, dict) else {"": None}
    if not all(isinstance(text, str) for text in about.values()):
        raise ValueError(f"'{path}' is damaged: `versions` must be texts by name.")
    if not isinstance(parameters, int | None):
        raise ValueError(f"'{path}' is damaged: `parameters` must be a whole number.")
    about = {"parameters": parameters, **about}
    settings = [*flat(dataclasses.asdict(Settings.of(values))), *about.items()]
    rows = read_rows(run / "history.csv", PLACE)
    levels = read_rows(run / "noise_levels.csv", _LEVELS)
    parts = [("Speed", speed(rows))] if rows else []
    if rows:
        losses = curves(rows, "loss_", "mean squared error", log=True)
        norms = curves(rows, "gradient_norm_", "gradient norm", log=True)
        others = [
            curves(rows, name, name.replace("_", " "))
            for name in ("learning_rate", "average_distance")
        ]
        parts.append(("Curves", "".join([losses, norms, *others])))
    if levels:
        parts.append(("Loss by noise level", noise_levels(levels)))
    parts.append(("Samples over time", grids(run / "samples")))
    for nearest in filter(_is_file, (run / "samples").glob("nearest.png")):
        words = (
            "<p>What the run draws at its end, each beside the training picture "
            "that is nearest to it by its pixels.</p>"
        )
        pictures = "".join(figures(_newest([nearest])))
        parts.append(("Nearest training pictures", words + pictures))
    skipped = paths.member(run, "skipped.txt")
    text = read_text(skipped, MAX_TEXT) if skipped.is_file() else "None so far."
    lines = "<br>".join(shown(line) for line in text.splitlines())
    parts.append(("Pictures that were skipped", f"<p>{lines}</p>"))
    parts.append(("Settings", table(settings)))
    title = shown(f"{config.get('recipe')}: {run.resolve().name}")
    body = "".join(f"<h2>{name}</h2>{text}" for name, text in parts)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}'
        f"</title><style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body>"
        "</html>\n"
    )
    files.write_text(run / "report.html", page)
    return run / "report.html"


def main(arguments=None):
    parser = start.make_parser(__doc__)
    parser.add_argument("run", type=start.path, help="run folder")
    args = parser.parse_args(arguments)
    with start.errors_as_lines():
        print(f"Written: {write_report(args.run)}")
