"""Starts recipes as users do."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def run_recipe(name, *arguments, hide_tensorflow=False):
    """Runs a recipe; returns the finished process with its output as text."""
    command = [sys.executable, str(ROOT / "recipes" / name), *map(str, arguments)]
    if hide_tensorflow:
        code = (
            "import runpy, sys; sys.modules['tensorflow'] = None; "
            f"sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT / 'recipes')!r}); "
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        command = [sys.executable, "-c", code, *command[1:]]
    return subprocess.run(command, capture_output=True, text=True)
