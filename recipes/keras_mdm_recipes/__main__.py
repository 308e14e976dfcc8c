"""`keras-mdm NAME ...`: the recipes, also where only the package is installed."""

import importlib
import sys

MODULES = {
    "train-image": "train_image",
    "train-text": "train_text_to_image",
    "train-video": "train_video",
    "sample": "sample",
    "evaluate": "evaluate",
    "fid-statistics": "fid",
    "report": "report",
}


def main():
    name, *arguments = sys.argv[1:] or ["--help"]
    if name not in MODULES:
        print(f"usage: keras-mdm {{{','.join(MODULES)}}} ...")
        print("`keras-mdm NAME --help` explains each.")
        sys.exit(0 if name in ("-h", "--help") else 2)
    # What messages and `--help` call the program.
    sys.argv = [f"keras-mdm {name}", *arguments]
    importlib.import_module(f"keras_mdm_recipes.{MODULES[name]}").main()


if __name__ == "__main__":
    main()
