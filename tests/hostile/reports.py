"""Forged run folders for `keras-mdm report`: what they have ends in a page."""

import os
import warnings

from hostile.forge import case, write

ROWS = "stage,resolution,step,loss,loss_8\n1,8,1,0.5,0.5\n1,8,2,0.4,0.4\n"
LEVELS = "stage,resolution,step,level,log_snr_from,log_snr_to,loss\n"


def reported(config=None, **files):
    """Makes a run folder for `keras-mdm report`; names have `_` for `.` and `/`."""

    def make(folder, outside):
        found = {"recipe": "train-image", "settings": {}}
        write(folder / "config.json", found if config is None else config)
        files.setdefault("history_csv", ROWS)
        for name, data in files.items():
            name = (
                name.replace("__", "/").replace("_csv", ".csv").replace("_png", ".png")
            )
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            if callable(data):
                data(path, outside)
            else:
                write(path, data)

    return make


def report(folder):
    from keras_mdm_recipes.report import write_report

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        write_report(folder)
    return [str(one.message) for one in told if "left out" in str(one.message)]


REPORTS = {
    "columns": reported(history_csv="a,b\n1,2\n"),
    "texts": reported(history_csv=ROWS + "x,8,y,z,evil\n" * 9),
    "half": reported(history_csv="stage,resolution,step\nx\n"),
    "markup": reported(history_csv=ROWS.replace("loss_8", "loss_$\\frac{x")),
    "many-columns": reported(
        history_csv="stage,resolution,step,"
        + ",".join(f"loss_{i}" for i in range(20_000))
        + "\n1,8,1"
        + ",1" * 20_000
        + "\n"
    ),
    "binary": reported(history_csv=b"\xff\xfe\0\xd8"),
    "zeros": reported(history_csv=b"stage\0"),
    "infinite": reported(history_csv=ROWS + "1,8," + "9" * 5000 + ",1,1\n"),
    "history-link": reported(history_csv=lambda p, o: p.symlink_to(o / "secret.txt")),
    "levels-link": reported(
        noise_levels_csv=lambda p, o: p.symlink_to(o / "secret.txt")
    ),
    "levels": reported(noise_levels_csv=LEVELS + "1,8,1,8,x,y,z\n"),
    "history-fifo": reported(history_csv=lambda p, o: os.mkfifo(p)),
    "grid-link": reported(
        samples__stage1_png=lambda p, o: p.symlink_to(o / "secret.png")
    ),
    "grid-fifo": reported(samples__stage1_png=lambda p, o: os.mkfifo(p)),
    "nearest-fifo": reported(samples__nearest_png=lambda p, o: os.mkfifo(p)),
    "nearest-link": reported(
        samples__nearest_png=lambda p, o: p.symlink_to(o / "secret.png")
    ),
    "skipped-link": reported(
        **{"skipped.txt": lambda p, o: p.symlink_to(o / "secret.txt")}
    ),
    "settings-list": reported({"recipe": "train-image", "settings": []}),
    "settings-deep": reported(
        '{"recipe": "train-image", "settings": ' + '{"a":' * 900 + "1" + "}" * 901
    ),
    "versions": reported({"recipe": "train-image", "settings": {}, "versions": [1]}),
}
for _name, _made in REPORTS.items():
    case("report", _name, _made, report)
