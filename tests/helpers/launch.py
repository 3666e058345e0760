"""Starting the jobs of ``pwm ... -m`` one after the other, as Hydra's own launcher does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pwm.cli.overrides import Schema


def without_hydra(patch: pytest.MonkeyPatch) -> None:
    """Jobs of this process get their settings as single runs do; Hydra takes a second for them."""
    patch.setattr("pwm.cli.main.with_hydra", _launch)


def _launch(schema: Schema, words: list[str], function: Callable[[Any], Any]) -> None:
    for settings in schema.runs(words):
        function(schema.composed(settings))
