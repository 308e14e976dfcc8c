"""Starts recipes as users do."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def run_recipe(name, *arguments, without_tensorflow=False):
    """Runs a recipe; returns the finished process with its output as text.

    Args:
        name: Name of the recipe's file.
        *arguments: Flags.
        without_tensorflow: bool. Whether it fails if TensorFlow has been imported.
    """
    command = [sys.executable, str(ROOT / "recipes" / name), *map(str, arguments)]
    if without_tensorflow:
        code = (
            "import runpy, sys\n"
            "sys.argv = sys.argv[1:]\n"
            f"sys.path.insert(0, {str(ROOT / 'recipes')!r})\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'\n"
        )
        command = [sys.executable, "-c", code, *command[1:]]
    return subprocess.run(command, capture_output=True, text=True)
