"""The files that a user-defined task's environment is made of, and their fingerprints.

An environment keeps its name while its source is edited, so what was played in it is known by the
source: that of the module which has it and, by their import statements, of the modules that this
one uses. Modules of other installed packages are left out, for their versions are on record. Files
count that the environment is given by path, and simulator models that a module names.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from importlib import import_module
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
    found: dict[str, bytes] = {}
    waiting = _first_modules(task)
    while waiting:
        name = waiting.pop()
        file = _source_file(name)
        if file is None or f"module {name}" in found:
            continue
        with tokenize.open(file) as source:
            tree = ast.parse(source.read())
        found[f"module {name}"] = ast.unparse(tree).encode()
        for model in _models_named_in(tree, file.parent):
            found[f"file {model.name}"] = model.read_bytes()
        waiting += [other for other in _imports(tree, name) if _belongs(other, name)]
    for value in json.loads(task.env_kwargs).values():
        if isinstance(value, str) and Path(value).is_file():
            found[f"file {Path(value).name}"] = Path(value).read_bytes()
    return {f"{name} of {task.name}": fingerprint(found[name]) for name in sorted(found)}


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
        names = [name for name in names if name.partition(".")[0] not in _VERSIONED]
        for name in names:
            import_module(name)
    except (gymnasium.error.Error, ImportError):
        return []  # to make it fails likewise, with a sentence
    return [*filter(None, [registering]), *names]


def _source_file(name: str) -> Path | None:
    module = sys.modules.get(name)
    if module is None or getattr(module, "__file__", None) is None:
        return None
    file = inspect.getsourcefile(module)
    return Path(file) if file and Path(file).is_file() else None


def _imports(tree: ast.AST, importer: str) -> Iterator[str]:
    """The modules that a source's import statements may name."""
    module = sys.modules[importer]
    package = importer if hasattr(module, "__path__") else importer.rpartition(".")[0]
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
    top = name.partition(".")[0]
    if top == importer.partition(".")[0]:
        return True
    file = _source_file(name)
    if file is None or top in _VERSIONED:
        return False
    return not any(file.resolve().is_relative_to(directory) for directory in _INSTALLED)


def _models_named_in(tree: ast.AST, directory: Path) -> Iterator[Path]:
    """Files of simulator models beside a module, or one directory below, that it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = Path(node.value).name
            if name.endswith(_MODELS):
                yield from (p for p in directory.glob("*") if p.name == name and p.is_file())
                yield from (p for p in directory.glob("*/*") if p.name == name and p.is_file())
