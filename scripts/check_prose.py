"""Wording that this project has given up: ``python scripts/check_prose.py`` lists it and fails.

The pages and the docstrings are read, code in them is not. To give up another wording, add a rule.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from check_links import ROOT, blank_code, pages


@dataclass(frozen=True)
class Rule:
    """A wording, and what to say for it.

    Attributes:
        pattern: a regular expression, matched without regard to case.
        instead: what to say.
        docstrings: whether it holds in docstrings too, or on pages alone.
    """

    pattern: str
    instead: str
    docstrings: bool = True


_UNITS = "agents?|cores?|director(?:y|ies)|episodes?|files?|goals?|jobs?|minutes?|networks?"
_UNITS += "|polic(?:y|ies)|rows?|scores?|seconds?|seeds?|states?|steps?|updates?|windows?"

RULES = (
    Rule(r"\ballotments?\b", "episode budget"),
    Rule(r"\bown tasks?\b", "task file, or user-defined task"),
    Rule(r"\bagents? at work\b", "SAC worker"),
    Rule(r"\bbehaviour(?:al)? cloning\b", "behavior cloning", docstrings=False),
    Rule(rf"\b(?:{_UNITS}) a (?:GPU|rank|round|seed|task|worker)\b", "per ...", docstrings=False),
)


def wording(text: str, where: str, docstring: bool = False) -> list[str]:
    """One line per wording that the rules forbid."""
    found = []
    for rule in RULES:
        if rule.docstrings or not docstring:
            for match in re.finditer(rule.pattern.replace(" ", r"\s+"), text, re.IGNORECASE):
                line = text.count("\n", 0, match.start()) + 1
                shown = " ".join(match[0].split())
                found.append(f"{where}:{line}: '{shown}': say {rule.instead}")
    return found


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module, each behind as many line breaks as stand before it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield "\n" * (first.lineno - 1) + str(first.value.value)


def forbidden(root: Path = ROOT) -> list[str]:
    """Every forbidden wording of the project."""
    found: list[str] = []
    for page in pages(root):
        where = str(page.relative_to(root))
        found += wording(blank_code(page.read_text(encoding="utf-8")), where)
    for package in ("pwm", "envs", "scripts"):
        for module in sorted(root.glob(f"{package}/**/*.py")):
            where = str(module.relative_to(root))
            for text in docstrings(module.read_text(encoding="utf-8")):
                found += wording(text, where, docstring=True)
    return found


def main() -> int:
    """Print every forbidden wording."""
    found = forbidden()
    print("\n".join(found) or "no wording that was given up")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
