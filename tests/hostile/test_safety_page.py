"""`docs/safety.md` names tests, limits and kinds of cases: all of them exist."""

import dataclasses
import pathlib
import re

import pytest

from hostile.cases import CASES
from keras_mdm.data import Limits

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "safety.md").read_text()


def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 80


def test_tests_that_are_named_exist():
    tests = {path.name: path.read_text() for path in ROOT.glob("tests/**/*.py")}
    named = set(re.findall(r"`(?:hostile/)?((?:test_)?\w+)(\.py)?`", PAGE))
    files = {f"{name}.py" for name, ending in named if ending}
    assert files <= set(tests) and len(files) > 8
    functions = {n for n, ending in named if n.startswith("test_") and not ending}
    text = "\n".join(tests.values())
    assert functions and all(f"def {name}(" in text for name in functions)
    lists = {n for n, _ in named if n.isupper() and n[0] != "_"}
    assert lists and all(re.search(rf"^{name} = ", text, re.M) for name in lists)


def test_kinds_of_cases_are_those_of_the_page():
    rows = re.findall(r"((?:`\w+`, )*`\w+`) cases", PAGE)
    named = {kind for row in rows for kind in re.findall(r"`(\w+)`", row)}
    kinds = {case.kind for case in CASES}
    assert named - {"CONFIGS", "METADATA", "PICKLES", "tensor"} <= kinds
    # The others are named by the list that they are made from.
    assert kinds - named <= {"preset", "pth", "picture", "captions"}


def test_limits_are_those_of_the_code():
    names = {field.name for field in dataclasses.fields(Limits)}
    assert all(f"`{name}`" in PAGE for name in names)
    for module, name in re.findall(r"`(\w+)\.(_?[A-Z]\w+)`", PAGE):
        text = "".join(f.read_text() for f in ROOT.glob(f"keras_mdm/**/{module}.py"))
        assert re.search(rf"^{name}\b|, {name} = ", text, re.M), name
