"""Forged and damaged files: refused or skipped, and nothing else happens.

The whole corpus takes a minute and is run with `-m slow`; a part of each kind always.
"""

import collections
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

from hostile import proof
from hostile.cases import CASES
from hostile.damage import check

pytestmark = pytest.mark.once

TESTS = pathlib.Path(__file__).parents[1]


def read(names, folder):
    """What the watch tells of cases, by name; see `watch.py`."""
    paths = [TESTS.parent, TESTS, TESTS.parent / "recipes"]
    cache = folder / "cache"
    cache.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "hostile.watch", str(folder), *names],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "XDG_CACHE_HOME": str(cache),
            "HF_HOME": str(cache / "hf"),
            "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
            "TMPDIR": str(cache),
        },
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["id"] for result in found] == list(names), done.stderr[-3000:]
    return {result["id"]: result for result in found}


def wrong(result):
    """What a reader did that it must not."""
    bad = [*result["seen"], *result["marker"], *result["changed"]]
    if result["outcome"] not in ("refused", "skipped"):
        bad.append(f"{result['outcome']} {result['why']}")
    if result["seconds"] >= 10 or result["memory"] >= 2**30:
        bad.append(f"{result['seconds']} s, {result['memory']} bytes")
    return bad


def test_forged_files_of_each_kind(tmp_path):
    kinds = collections.defaultdict(list)
    for case in CASES:
        kinds[case.kind].append(case.id)
    chosen = random.Random(0)
    names = [name for ids in kinds.values() for name in chosen.sample(ids, 3)]
    found = read([*names, *proof.PROOFS], tmp_path)
    assert {name: wrong(found[name]) for name in names if wrong(found[name])} == {}
    # And it would have been seen.
    for name in set(proof.PROOFS) - {"proof-takes_memory"}:
        assert found[name]["seen"] or found[name]["marker"], name
    assert found["proof-follows_a_link"]["changed"]
    assert found["proof-imports"]["marker"]
    assert found["proof-takes_memory"]["memory"] >= 2**30


@pytest.mark.slow
def test_the_whole_corpus(tmp_path):
    names = [case.id for case in CASES]
    assert len(names) == len(set(names)) >= 150
    found = read(names, tmp_path)
    assert {name: wrong(found[name]) for name in names if wrong(found[name])} == {}


@pytest.mark.parametrize(
    ("count", "seed"), [(60, 0), pytest.param(500, 1, marks=pytest.mark.slow)]
)
def test_damaged_files(count, seed, monkeypatch, tmp_path):
    """None loads other numbers, and each error names the file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counts, bad = check(count, seed)
    assert bad == []
    assert sum(counts.values()) == count and counts["refused"] > count / 2
