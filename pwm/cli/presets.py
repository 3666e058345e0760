"""Presets: YAML files of settings, of which a command line chooses by ``group=name``.

A command's config names the groups to choose from, and what is chosen of each unless the command
line says otherwise; a preset may choose from further groups. All are given to Hydra here, with the
names that settings have today.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from pwm.core.renamed_settings import Renames, with_current_names
from pwm.core.settings import Choices, block_type

_ROOT = "_global_"
_PACKAGE = re.compile(r"^# *@package +(\S+)", re.MULTILINE)

# Run directories are ours, so Hydra keeps out of the working directory and of the log.
_QUIET = {"output_subdir": None, "run": {"dir": "."}, "job": {"chdir": False}}
_NO_LOGGING = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]

_registered: list[Presets] = []  # of whichever command was last
_composed: dict[tuple[Presets, tuple[str, ...]], tuple[list[Preset], DictConfig]] = {}


@dataclass(frozen=True)
class Preset:
    """A YAML file.

    Attributes:
        chooser: what chooses it: its group, with ``@`` and a block's name where it is for that.
        file: where it is.
        package: the block that it is for unless the chooser says another; ``_global_`` for all.
        settings: what it holds, its defaults list too.
        renames: settings that the file has by an old name.
    """

    chooser: str
    file: Path
    package: str | None
    settings: dict[Any, Any]
    renames: Renames

    @property
    def choice(self) -> str:
        """The word that chooses it."""
        return f"{self.chooser}={self.file.stem}"

    def choices(self) -> Iterator[tuple[str, str]]:
        """The groups that it chooses from in turn, and what it chooses."""
        for entry in self.settings.get("defaults", ()):
            for key, value in entry.items() if isinstance(entry, Mapping) else ():
                if not key.startswith("override "):
                    yield key.removeprefix("/"), value


@dataclass(frozen=True)
class Presets:
    """The presets of a command.

    Attributes:
        command: its name.
        config_type: the dataclass of its settings.
        directory: of the groups of presets.
    """

    command: str
    config_type: type
    directory: Path

    @property
    def defaults(self) -> Choices:
        """What is chosen unless the command line says otherwise."""
        return getattr(self.config_type, "presets", {})

    @cached_property
    def found(self) -> list[Preset]:
        """All that can be chosen."""
        found: list[Preset] = []
        choosers = list(self.defaults)
        for chooser in choosers:  # which grows
            for file in sorted((self.directory / chooser.partition("@")[0]).glob("*.yaml")):
                preset = self._read(chooser, file)
                found.append(preset)
                choosers += [name for name, _ in preset.choices() if name not in choosers]
        return found

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """Names to choose from, by what chooses."""
        names: dict[str, list[str]] = {}
        for preset in self.found:
            names.setdefault(preset.chooser, []).append(preset.file.stem)
        return {chooser: in_order(of_group) for chooser, of_group in names.items()}

    def _read(self, chooser: str, file: Path) -> Preset:
        package, content = _content(file.read_text())
        settings = copy.deepcopy(content)
        block = chooser.partition("@")[2] or package or chooser
        kind = self.config_type if block == _ROOT else block_type(self.config_type, block)
        renames: Renames = []
        if kind is not None:
            settings, renames = with_current_names(kind, settings)
        return Preset(chooser, file, package, settings, renames)

    @property
    def groups(self) -> set[str]:
        """The groups, apart from the blocks that they are for."""
        return {chooser.partition("@")[0] for chooser in self.names}

    def register(self) -> None:
        """Give Hydra the presets, the command's settings and what is chosen by default.

        Those of another command are taken back, of whose groups one may be a setting here. What
        Hydra has already is not given again, since that takes longer than to compose a run.
        """
        store = ConfigStore.instance()
        for last in _registered:
            if last == self and last.found == self.found:
                return
            for group in last.groups:
                del store.repo[group]
        _registered[:] = [self]
        for preset in self.found:
            group = preset.chooser.partition("@")[0]
            store.store(preset.file.stem, preset.settings, group, preset.package)
        schema = f"{self.command}_schema"
        store.store(schema, self.config_type)
        chosen = [{group: name} for group, name in self.defaults.items()]
        defaults = [schema, *chosen, "_self_", *_NO_LOGGING]
        store.store(self.command, {"defaults": defaults, "hydra": _QUIET})

    def composed(self, choices: tuple[str, ...]) -> DictConfig:
        """What the command's config is with these words, to read only.

        Hydra composes it once for all runs with the same choices, since that takes long.
        """
        found, config = _composed.get((self, choices), (None, None))
        if config is None or found != self.found:
            self.register()
            with initialize(config_path=None, version_base="1.3"):
                config = compose(self.command, list(choices))
            _composed[self, choices] = self.found, config
        return config

    def chosen(self, words: Sequence[str]) -> list[Preset]:
        """The presets that words and defaults choose."""
        choices = {f"{chooser}={name}" for chooser, name in self.defaults.items()}
        choices |= {f"{c}={name}" for preset in self.found for c, name in preset.choices()}
        given = dict(word.split("=", 1) for word in words if "=" in word)
        choices = {c for c in choices if c.split("=")[0] not in given}
        choices |= {f"{chooser}={name}" for chooser, name in given.items()}
        return [preset for preset in self.found if preset.choice in choices]


@lru_cache(maxsize=256)
def _content(text: str) -> tuple[str | None, dict[Any, Any]]:
    """The package that a file names, and its settings; growing reads the same for every step."""
    header = _PACKAGE.search(text)
    settings = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    assert isinstance(settings, dict)
    return header[1] if header else None, settings


def in_order(names: Iterable[str]) -> list[str]:
    """Sizes by size, and names behind them by the alphabet."""

    def order(name: str) -> tuple[float, str]:
        size = re.match(r"(\d+)([MB]?)", name)
        return (float(size[1]) * (1e3 if size[2] == "B" else 1) if size else float("inf"), name)

    return sorted(names, key=order)
