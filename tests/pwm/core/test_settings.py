from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pwm.core.errors import PwmError
from pwm.core.settings import (
    all_may_change,
    block_types,
    changeable,
    input_paths,
    input_settings,
    require_inputs,
    setting,
)
from pwm.core.validation import require_at_least, require_choice, require_valid


@dataclass
class Inner:
    width: int = 4
    workers: int = setting(1, may_change=True)


@dataclass
class Config:
    data: str = setting("???", input_path=True)
    more: list[str] = setting(default_factory=list, input_path=True)
    model: str | None = setting(None, input_path=True, words=("planner",))
    out: str = "run"
    inner: Inner = field(default_factory=Inner)
    other: Inner = setting(default_factory=Inner, may_change=True)


def test_facts_are_read_from_the_declaration():
    assert input_settings(Config) == ["data", "more", "model"]
    assert changeable(Config) == {"inner.workers", "other"}
    assert block_types(Config) == {"inner": Inner, "other": Inner}
    assert (Config().more, Config().other) == ([], Inner())
    assert Config().more is not Config().more


def test_all_settings_of_a_config_may_change():
    @all_may_change
    @dataclass
    class Free:
        data: str = setting("x", input_path=True)
        steps: int = 3

    assert changeable(Free) == {"data", "steps"}
    assert input_settings(Free) == ["data"]


def test_input_paths_are_those_given_and_no_words():
    assert input_paths(Config("a", ["b", "c"], "d")) == ["a", "b", "c", "d"]
    assert input_paths(Config("a", model="planner")) == ["a"]
    assert input_paths(Config("a")) == ["a"]


def test_what_is_not_there_is_named_unless_an_earlier_stage_makes_it(tmp_path):
    (tmp_path / "data").mkdir()
    there, later = str(tmp_path / "data"), str(tmp_path / "made")
    require_inputs(Config(there, model="planner"))
    with pytest.raises(PwmError, match=f"there is no {later}; check the path"):
        require_inputs(Config(there, [later]))
    require_inputs(Config(there, [later], f"{later}/part"), made=[later])
    with pytest.raises(PwmError, match="there is no"):
        require_inputs(Config(there, [f"{later}_too"]), made=[later])


def test_a_path_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_inputs(Config(f"{tmp_path}/./made/"), made=["made"])


@dataclass
class Checked:
    width: int = 0
    units: str = "symlog"

    def validate(self) -> None:
        require_choice(self, "units", ("symlog", "real"))
        require_at_least(self, 1, "width")
        raise PwmError("no width would do.")


def test_a_message_names_the_setting_as_it_is_typed():
    with pytest.raises(PwmError, match=r"^learner\.width=0 must be at least 1"):
        require_valid("learner", Checked())
    with pytest.raises(PwmError, match=r"^unknown learner\.units 'euros'; it is symlog or real"):
        require_valid("learner", Checked(1, "euros"))
    with pytest.raises(PwmError, match=r"'sym'; did you mean 'symlog'\? It is symlog or real"):
        require_valid("learner", Checked(1, "sym"))
    with pytest.raises(PwmError, match=r"^learner: no width would do"):
        require_valid("learner", Checked(1))
