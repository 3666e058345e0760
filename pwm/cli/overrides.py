"""The words of a command line, ``key=value``: checked before Hydra composes them, explained after.

Hydra takes some words that mean nothing here, such as ``+stepz=3``, which adds a setting that no
code reads. They are refused, with the nearest setting where a name is unknown.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from pwm.cli.presets import Presets, in_order
from pwm.cli.words import as_hydra_reads, for_a_shell, hydra_value, key_and_value
from pwm.core.errors import PwmError
from pwm.core.processes import is_main_rank
from pwm.core.renamed_settings import Renames, current_name, tell_renames, with_current_names
from pwm.core.settings import block_type, innermost
from pwm.core.validation import nearest

SWEEPS = ("--multirun", "-m")
LAUNCHER = "launcher"  # the group of presets that start several runs
_SHOWN = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}
_OPTIONS = (*SWEEPS, *_SHOWN, "--resolve")
_ELSEWHERE = {"tasks": "suite", "suite": "tasks", "policies": "policy", "policy": "policies"}
_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Schema:
    """What the words of a command can say.

    Attributes:
        command: its name.
        config_type: the dataclass of its settings.
        directory: of the YAML configs.
        example: a command line that works.
    """

    command: str
    config_type: type
    directory: Path
    example: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Every setting by its dotted name."""
        return _settings_of(self.config_type)[1]

    @property
    def _defaults(self) -> DictConfig:
        return _settings_of(self.config_type)[0]

    @cached_property
    def presets(self) -> Presets:
        """The presets to choose from."""
        return Presets(self.command, self.config_type, self.directory)

    def current(self, words: Sequence[str]) -> list[str]:
        """The words with the names that settings have today; says which had old ones.

        Raises:
            PwmError: for words that cannot be read.
        """
        options, settings = self.split(words)
        renamed, renames = [], []
        several = bool(set(SWEEPS) & set(options))
        for word in settings:
            found, of_word = self._renamed(self._readable(word, several))
            renamed += found
            renames += of_word
        if is_main_rank():
            tell_renames(renames)
            for preset in self.presets.chosen(renamed):
                tell_renames(preset.renames, str(preset.file))
        return [*options, *renamed]

    def _readable(self, word: str, several: bool) -> str:
        if (parts := key_and_value(word)) is None:
            return word
        key, value = parts
        if key in self.presets.names:
            return word
        name = current_name(self.config_type, key)
        if name not in self.keys:
            return word
        return as_hydra_reads(key, value, self._kind(name), several, _parsed)

    def _renamed(self, word: str) -> tuple[list[str], Renames]:
        override = self._parse(word)
        key = override.key_or_group
        name = current_name(self.config_type, key)
        renames = [(key, name)] if name != key else []
        kind = block_type(self.config_type, name)
        value = None if override.is_sweep_override() else override.value()
        if kind is not None and isinstance(value, Mapping):
            settings, within = with_current_names(kind, value)
            if within or name in self.presets.groups:  # or Hydra takes it for a choice
                renames += [(f"{name}.{old}", f"{name}.{new}") for old, new in within]
                return [f"{name}.{k}={hydra_value(v)}" for k, v in innermost(settings)], renames
        return [word.replace(key, name, 1)], renames

    def split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Hydra's options with their values, and the settings.

        Raises:
            PwmError: for any other option, or one without its value.
        """
        options, settings = [], []
        rest = iter(words)
        for word in rest:
            if word in _SHOWN:
                value = next(rest, "")
                if value not in _SHOWN[word]:
                    raise PwmError(f"{word} '{value}' is unknown; give {word} job.")
                options += [word, value]
            elif word in _OPTIONS:
                options.append(word)
            elif word.startswith("-"):
                raise PwmError(
                    f"unknown option '{word}'; settings are given as key=value, without dashes: "
                    f"{self._help}"
                )
            else:
                settings.append(word)
        if set(SWEEPS) & set(options) and set(_SHOWN) & set(options):
            raise PwmError("--cfg shows one run's settings; leave -m out.")
        if "--resolve" in options and not set(_SHOWN) & set(options):
            raise PwmError(f"--resolve goes with --cfg job: `pwm {self.command} --cfg job`.")
        return options, settings

    def check(self, words: Sequence[str]) -> None:
        """Refuse words that Hydra would take otherwise than they are meant.

        Raises:
            PwmError: for a word that is no setting, or sets what does not exist or in no way that
                has a meaning.
        """
        options, settings = self.split(words)
        for word in settings:
            override = self._parse(word)
            sweep = bool(set(SWEEPS) & set(options))
            if override.key_or_group == LAUNCHER and LAUNCHER in self.presets.names and not sweep:
                raise PwmError(f"{word} says how several runs are started; give it with -m.")
            if not override.key_or_group.startswith("hydra"):
                self._check(word, override, sweep)

    def swept(self, words: Sequence[str], setting: str) -> tuple[list[Any], list[str]] | None:
        """The values that a setting takes, one a job, and the words that set others.

        Returns:
            None if the words do not name the setting, or give several values to others alone.

        Raises:
            PwmError: if both it and another are given several values.
        """
        _, settings = self.split(words)
        parsed = [(word, self._parse(word)) for word in settings]
        own = [override for _, override in parsed if override.key_or_group == setting]
        others = [(w, override) for w, override in parsed if override.key_or_group != setting]
        several = [word for word, override in others if override.is_sweep_override()]
        if not own or (several and not own[-1].is_sweep_override()):
            return None
        if several:
            raise PwmError(
                f"{several[0]} gives several values, and so would {setting}= with -m; give each "
                f"value in a command of its own, with its own out=."
            )
        last = own[-1]
        if not last.is_sweep_override():
            return [last.value()], [word for word, _ in others]
        if not last.is_choice_sweep():
            raise PwmError(f"{setting}= takes a suite, or tasks joined with commas: {self.example}")
        values = [self._parse(f"{setting}={v}").value() for v in last.sweep_string_iterator()]
        return values, [word for word, _ in others]

    def composed(self, words: Sequence[str]) -> Any:
        """The typed settings of one run.

        Raises:
            PwmError: for settings that do not fit.
        """
        try:
            return OmegaConf.to_object(self.plain(words))
        except (HydraException, OmegaConfBaseException) as error:
            raise PwmError(self.explain(error, words)) from error

    def plain(self, words: Sequence[str]) -> DictConfig:
        """The same as Hydra composes them, of which some may be missing.

        Raises:
            HydraException, OmegaConfBaseException: for words that do not fit.
        """
        settings = [word for word in words if self._sets_one(word)]
        choices = [word for word in words if not self._sets_one(word)]
        config = copy.deepcopy(self.presets.composed(tuple(choices)))
        for word in settings:
            override = self._parse(word)
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        return config

    def _sets_one(self, word: str) -> bool:
        """Whether a word gives one setting one value, and chooses no preset."""
        override = self._parse(word)
        chooses = override.key_or_group in self.presets.groups or override.package
        special = override.is_add() or override.is_delete() or override.is_sweep_override()
        return not (chooses or special or override.key_or_group.startswith("hydra"))

    def chosen(self, words: Sequence[str], group: str) -> str | None:
        """The preset that the words choose of a group; None if they choose none."""
        prefix = f"{group}="
        given = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
        return given[-1] if given else None

    def has_sweep(self, words: Sequence[str]) -> bool:
        """Whether a setting is given several values."""
        return any(self._parse(word).is_sweep_override() for word in self.split(words)[1])

    def runs(self, words: Sequence[str]) -> list[list[str]]:
        """The settings of each run that words with several values ask for, in Hydra's order."""
        choices = []
        for word in self.split(words)[1]:
            override = self._parse(word)
            if not override.key_or_group.startswith("hydra"):
                several = override.is_sweep_override()
                values = override.sweep_string_iterator() if several else ()
                key = word.partition("=")[0]
                choices.append([f"{key}={value}" for value in values] if several else [word])
        return [list(run) for run in product(*choices)]

    @property
    def _help(self) -> str:
        return f"`pwm {self.command} --help` lists them."

    def _parse(self, word: str) -> Override:
        override = _parsed(word)
        if override is None or not override.key_or_group:
            parts = key_and_value(word)
            shown = shlex.quote(word) if "'" in word else f"'{word}'"
            raise PwmError(
                f"cannot read {shown}: settings are given as key=value, lists as "
                f"'key=[a,b]', and text with special characters as "
                f"{for_a_shell(*(parts or ('key', 'a, b')))}. {self._help}"
            )
        return override

    def _check(self, word: str, override: Override, sweep: bool) -> None:
        key = override.key_or_group
        name = f"{key}@{override.package}" if override.package else key
        if override.is_sweep_override() and not sweep:
            value = word.partition("=")[2]
            form = f" a list as '{key}=[a,b]',"
            if (kind := self._kind(key)) is str:
                form = f" text with a comma as {for_a_shell(key, value)},"
            elif kind in (int, float, bool):
                form = ""
            raise PwmError(
                f"{word} gives several values; give one,{form} or one run for each with -m."
            )
        if name in self.presets.names and not override.is_add() and not override.is_delete():
            if not override.is_sweep_override():
                self._check_preset(name, override.value())
        elif "@" not in name and not self._is_free(key):
            if key not in self.keys:
                raise PwmError(self._unknown(key))
            if override.is_add() or override.is_delete():
                raise PwmError(
                    f"'{word}' adds or takes away a setting, and all of them are fixed; set it as "
                    f"{key}=..., or leave it out for its default."
                )
            self._check_value(key, word, override.value())

    def _check_preset(self, name: str, value: Any) -> None:
        presets = self.presets.names[name]
        if not isinstance(value, str) or value not in presets:
            shown = str(value).replace("'", "")
            hint = nearest(shown, presets, form=f"{name}={{}}")
            raise PwmError(
                f"there is no preset {name}={shown}{hint or ';'} choose from {', '.join(presets)}."
            )

    def _check_value(self, key: str, word: str, value: Any) -> None:
        """Refuse what OmegaConf converts without a word."""
        kind = self._kind(key)
        if isinstance(value, bool) and kind in (int, float):
            raise PwmError(f"{word} must be {_described(kind)}.")
        if value == "" and kind is str:
            raise PwmError(f"{key}= is empty; give a value, or null where it may be left out.")

    def _is_free(self, key: str) -> bool:
        """Whether a key lies within a setting that takes anything, such as ``episodes``."""
        parts = key.split(".")
        return any(self._kind(".".join(parts[:i])) is Any for i in range(1, len(parts)))

    def _kind(self, key: str) -> Any:
        """The declared type of a setting, None if there is none of that name."""
        parent: Any = self._defaults
        *groups, last = key.split(".")
        for group in groups:
            parent = parent._get_node(group) if isinstance(parent, DictConfig) else None
        node = parent._get_node(last) if isinstance(parent, DictConfig) else None
        return None if node is None else node._metadata.ref_type

    def _unknown(self, key: str) -> str:
        names = [*self.keys, *self.presets.names]
        last = key.rpartition(".")[2]
        alike = [n for n in names if last in (n.rpartition(".")[2], n.partition("@")[0])]
        hint = nearest(key, alike or names, 0.0 if alike else 0.6, form="{}=")
        if (here := _ELSEWHERE.get(key)) in names:
            hint = f"; it is {here}= here."
        return f"{self.command} has no setting '{key}'{hint or ';'} {self._help}"

    def explain(self, error: Exception, words: Sequence[str]) -> str:
        """One sentence for what Hydra or OmegaConf raised when it composed the words."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OmegaConfBaseException):
            cause = cause.__cause__ or cause.__context__
        key = str(getattr(cause, "full_key", None) or getattr(cause, "key", None) or "")
        if isinstance(cause, MissingMandatoryValue):
            return f"{self.command} needs {key}=...; for example: {self.example}"
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return self._unknown(key)
        if isinstance(error, MissingConfigException) and error.options:
            given = str(error.missing_cfg_file).replace("/", "=")
            options = in_order(error.options)
            return f"there is no preset {given}; choose from {', '.join(options)}."
        kind = self._kind(key.partition("[")[0])
        if kind is not None and kind is not Any:
            given = _given(key.partition("[")[0], words)
            reason = _first_line(cause or error)
            literally = ""
            if kind is str and (parts := key_and_value(given)) and parts[1][:1] in ("[", "{"):
                literally = f" For this very text give {for_a_shell(*parts)}."
            return f"{given} must be {_described(kind)} ({reason}).{literally} {self._help}"
        where = f" for {key}" if key else ""
        return f"bad value{where}: {_first_line(cause or error)}. {self._help}"


@lru_cache(maxsize=1024)
def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


@lru_cache(maxsize=64)
def _settings_of(config_type: type) -> tuple[DictConfig, tuple[str, ...]]:
    """The settings of a command with their defaults, to read only, and their dotted names."""
    defaults = OmegaConf.structured(config_type)
    return defaults, tuple(_keys(defaults, ""))


def _keys(node: DictConfig, prefix: str) -> list[str]:
    keys = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            keys += _keys(node[key], f"{prefix}{key}.")
    return keys


def _described(kind: Any) -> str:
    if get_origin(kind) is list:
        inner = get_args(kind)[0]
        plural = {int: "whole numbers", float: "numbers"}.get(inner, "names")
        example = {int: "[4,8]", float: "[0.0,0.5]"}.get(inner, "[a,b]")
        return f"a list of {plural} such as {example}"
    if kind in _NAMES:
        return _NAMES[kind] if kind in (bool, str) else f"a {_NAMES[kind]}"
    return "a group of settings, which are set one by one as key.name=value"


def _given(key: str, words: Sequence[str]) -> str:
    """The word that sets a key, as it was given."""
    return next((word for word in reversed(words) if word.startswith(f"{key}=")), key)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
