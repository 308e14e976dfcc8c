"""Which file may import which: the contracts of `[tool.importlinter]`, and the rest."""

import ast
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_mdm"

# Where private names of Keras may stand; each says why.
KERAS_INTERNALS = {
    "backend/keras_internals.py",
    "backend/trainer.py",
    "finite_updates.py",
    "fitting/streams.py",
    "muon.py",
    "optimizer.py",
    "schedule_free.py",
}


def imports(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_imports_go_one_way():
    """Layers of the package, folders that do not know each other, no circle."""
    program = "from importlinter.cli import lint_imports_command as c; c()"
    command = [sys.executable, "-c", program, "--no-cache"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_recipes_tools_and_examples_use_public_names():
    """No name that begins with an underscore is taken from the package."""
    for folder in ("recipes", "tools", "examples"):
        for path in sorted((ROOT / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [alias.name for alias in node.names]
                    if node.module.split(".")[0] == "keras_mdm":
                        private = [name for name in names if name.startswith("_")]
                        assert not private, f"{path.name}: {private}"


def test_backends_are_imported_in_one_place():
    """`jax`, `tensorflow` and `torch` beside `backend/` only for data and files."""
    allowed = {"backend", "data", "convert", "conditioning"}
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        found = {name.split(".")[0] for name in imports(path)}
        if folder not in allowed:
            assert not found & {"jax", "tensorflow", "torch"}, path


def test_private_names_of_keras_stand_in_few_places():
    for path in PACKAGE.rglob("*.py"):
        inside = str(path.relative_to(PACKAGE))
        uses = [name for name in imports(path) if name.startswith("keras.src")]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in (
                "_flatten_layers",
                "_jax_state",
                "_assert_compile_called",
                "_backend_update_step",
                "_clip_gradients",
                "_iterations",
            ):
                uses.append(node.attr)
        assert not uses or inside in KERAS_INTERNALS, f"{inside}: {uses}"
