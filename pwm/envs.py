"""The environments, as ``from pwm.envs import make_env`` finds them wherever pwm is installed.

A checkout keeps them in its top-level ``envs``; a wheel has that package in this module's place, so
that installing pwm adds no package of so common a name. Where a user's own ``envs`` comes first on
Python's path, theirs stays what ``import envs`` finds, and the checkout's is loaded here.
"""

from __future__ import annotations

import sys
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envs import *  # noqa: F403 - the names that it lists


def _package() -> ModuleType:
    home = Path(__file__).resolve().parents[1] / "envs" / "__init__.py"
    found = util.find_spec("envs")
    if found is not None and found.origin and Path(found.origin).resolve() == home:
        return import_module("envs")
    spec = util.spec_from_file_location(
        __name__, home, submodule_search_locations=[str(home.parent)]
    )
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{home} is missing", name=__name__)
    package = util.module_from_spec(spec)
    sys.modules[__name__] = package
    spec.loader.exec_module(package)
    return package


sys.modules[__name__] = _package()
