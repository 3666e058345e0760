"""Fingerprints of what lies at the paths that a run reads from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from stores import SMALL, SUITE, coded_episode, coded_store

from pwm.core.settings import setting
from pwm.data.store import EpisodeStore
from pwm.runtime.checkpoint import save_checkpoint
from pwm.runtime.inputs import inputs_made_of, is_same_input


@dataclass
class Config:
    data: str | None = setting(None, input_path=True)
    init: str | None = setting(None, input_path=True)


def append(path: Path, task: str) -> None:
    with EpisodeStore.open(path, "a") as store:
        store.append(task, [coded_episode(SUITE[task], 4, 9, 0)], "test")


def test_a_store_is_known_by_its_episodes_task_by_task(tmp_path: Path) -> None:
    coded_store(tmp_path / "a", {"small": [3], "large": [3]})
    whole, small = Config(str(tmp_path / "a")), ["small"]
    before, of_small = inputs_made_of(whole), inputs_made_of(whole, small)
    assert (set(before), set(of_small)) == ({"data="}, {"data= (small)"})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert inputs_made_of(Config(str(tmp_path / "b"))) == before
    append(tmp_path / "a", "large")
    assert inputs_made_of(whole) != before
    assert inputs_made_of(whole, small) == of_small
    append(tmp_path / "a", SMALL.name)
    assert inputs_made_of(whole, small) != of_small


def save(path: Path, seed: int) -> None:
    save_checkpoint(path, "policy", {}, {"seed": seed})


def test_checkpoints_are_known_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    one, run, many = tmp_path / "one", tmp_path / "run", tmp_path / "many"
    save(one, 1)
    save(run / "checkpoints" / "step_000000001", 0)
    save(run / "checkpoints" / "step_000000002", 1)
    save(many / "walker-run", 1)
    save(many / "mw-push", 2)
    of_one = inputs_made_of(Config(init=str(one)))
    assert set(of_one) == {"init="}
    assert inputs_made_of(Config(init=f"{one}/")) == of_one
    assert inputs_made_of(Config(init=str(run))) == of_one
    of_many = inputs_made_of(Config(init=str(many)), ["walker-run"])
    assert set(of_many) == {"init= (walker-run)"}
    save(many / "mw-push", 3)
    assert inputs_made_of(Config(init=str(many)), ["walker-run"]) == of_many
    save(one, 2)
    assert inputs_made_of(Config(init=str(one))) != of_one


def test_nothing_has_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[")
    assert inputs_made_of(Config(str(tmp_path), str(tmp_path / "none"))) == {}


def test_a_path_leads_to_the_same_where_all_that_both_know_is_equal() -> None:
    before = {"data= (a)": "1", "data= (b)": "2"}
    assert is_same_input("data", before, {"data= (a)": "1"})
    assert not is_same_input("data", before, {"data= (a)": "1", "data= (b)": "3"})
    assert not is_same_input("data", before, {"data= (c)": "1"})
    assert not is_same_input("init", before, before)
