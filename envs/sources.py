"""The files that a user-defined task's environment is made of, and their fingerprints.

An environment keeps its name while its source is edited, so what was played in it is known by the
source: that of the module which has it and, by their import statements, of the modules that this
one uses. Other packages than its own that are installed are left out. Files count that the
environment is given by path, and simulator models that a module names.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pwm.core.fingerprints import MadeOf, fingerprint
from pwm.core.suites import Task

_MODELS = (".xml", ".mjb", ".urdf")
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)
_VERSIONED = ("pwm", "envs", "gymnasium", "metaworld", "dm_control", "mujoco")


def environment_sources(task: Task) -> MadeOf:
    """Fingerprints of a task's environment, by what they are of.

    There is none of what has its version on record: the suites, and Gymnasium's own environments.
    Comments and line breaks do not count. What cannot be found, such as an environment that was
    defined at a prompt, has no fingerprint either.
    """
    if task.domain != "gymnasium":
        return {}
    found: dict[str, list[str]] = defaultdict(list)
    waiting, seen = _first_modules(task), set()
    while waiting:
        name = waiting.pop()
        file = _source_file(name)
        if file is None or name in seen:
            continue
        seen.add(name)
        if (tree := _parsed(file)) is None:
            continue
        part = f"package {_top(name)}" if _is_installed(file) else f"module {name}"
        found[part].append(f"{name} {fingerprint(ast.unparse(tree).encode())}")
        for model in _models_named_in(tree, file.parent):
            found[f"file {model.name}"].append(fingerprint(model.read_bytes()))
        waiting += [other for other in _imports(tree, name) if _belongs(other, name)]
    for value in json.loads(task.env_kwargs).values():
        if isinstance(value, str) and os.path.isfile(value):
            found[f"file {Path(value).name}"].append(fingerprint(Path(value).read_bytes()))
    return {f"{part} of {task.name}": fingerprint(sorted(found[part])) for part in sorted(found)}


def _first_modules(task: Task) -> list[str]:
    """Those that register the environment and make it."""
    import gymnasium

    registering, _, env_id = task.env_id.rpartition(":")
    try:
        if registering:
            import_module(registering)
        spec = gymnasium.spec(env_id)
        makers: list[Any] = [spec.entry_point, *(w.entry_point for w in spec.additional_wrappers)]
        names = [m.partition(":")[0] if isinstance(m, str) else m.__module__ for m in makers if m]
        names = [name for name in [registering, *names] if name and _top(name) not in _VERSIONED]
        for name in names:
            import_module(name)
    except (gymnasium.error.Error, ImportError):
        return []  # to make it fails likewise, with a sentence
    return names


def _source_file(name: str) -> Path | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) if module is not None else _origin(name)
    return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None


def _parsed(file: Path) -> ast.AST | None:
    """A module's source; None for one that Python cannot read, and that nothing can have used."""
    try:
        with tokenize.open(file) as source:
            return ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return None


def _origin(name: str) -> str | None:
    """The file of a module that is not imported yet, but inside a function perhaps."""
    with suppress(Exception):  # of a package of the user's, which finding its module imports
        spec = find_spec(name)
        if spec is not None and spec.has_location:
            return spec.origin
    return None


def _imports(tree: ast.AST, importer: str) -> Iterator[str]:
    """The modules that a source's import statements may name."""
    is_package = hasattr(sys.modules.get(importer), "__path__")
    package = importer if is_package else importer.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _belongs(name: str, importer: str) -> bool:
    """Whether a module is a user's own, or of the package of the one that imports it."""
    if _top(name) == _top(importer):
        return True
    file = _source_file(_top(name))
    return file is not None and _top(name) not in _VERSIONED and not _is_installed(file)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_installed(file: Path) -> bool:
    return any(file.resolve().is_relative_to(directory) for directory in _INSTALLED)


def _models_named_in(tree: ast.AST, directory: Path) -> Iterator[Path]:
    """Files of simulator models beside a module, or one directory below, that it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = Path(node.value).name
            if name.endswith(_MODELS):
                yield from (p for p in directory.glob("*") if p.name == name and p.is_file())
                yield from (p for p in directory.glob("*/*") if p.name == name and p.is_file())
