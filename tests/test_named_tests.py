"""Tests that the documents name are there, and those of the promises are fast."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
NAMED = re.compile(r"\btests/[\w/]+\.py(?:::\w+)?")
PROMISES = "docs/reliability.md"


def named_in(document: Path) -> set[str]:
    return set(NAMED.findall(document.read_text()))


@pytest.mark.parametrize(
    "name", sorted(set().union(*map(named_in, DOCUMENTS))), ids=lambda name: name.split("/")[-1]
)
def test_a_test_that_is_named_is_there(name):
    file, _, function = name.partition("::")
    assert (ROOT / file).is_file()
    assert not function or function in functions(ROOT / file)


def test_the_tests_of_the_promises_are_fast():
    named = named_in(ROOT / PROMISES)
    assert len(named) > 40
    for name in named:
        file, _, function = name.partition("::")
        assert not functions(ROOT / file)[function], f"{name} is marked slow"


def functions(file: Path) -> dict[str, bool]:
    """The tests of a file, and whether they are marked slow."""
    tree = ast.parse(file.read_text())
    marks = [node for node in tree.body if isinstance(node, ast.Assign)]
    all_slow = any("pytestmark" in ast.unparse(m) and "mark.slow" in ast.unparse(m) for m in marks)
    return {
        node.name: all_slow or "pytest.mark.slow" in map(ast.unparse, node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
