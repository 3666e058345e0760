"""A world model or data that were remade under their old name are noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from own_env import OwnEnv

from pwm.cli.main import main
from pwm.core.described_tasks import (
    require_same_environments,
    tasks_of,
    tell_differences,
)
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, get_suite, get_task
from pwm.data.store import EpisodeStore
from pwm.models.world_model import KIND
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint
from pwm.runtime.training_checkpoints import list_steps


def remake(world_model: Path) -> None:
    """Put another checkpoint in the place of the newest."""
    newest = list_steps(world_model / "checkpoints")[-1]
    old = load_checkpoint(newest, KIND)
    save_checkpoint(newest, KIND, old.tensors, {**old.meta, "remade": True})


def append(data: Path, task: str) -> None:
    with EpisodeStore.open(data, "a") as store:
        store.append(task, [store.episode(task, 0)], "toy")


@pytest.fixture
def inputs(toy, toy_world_model, tmp_path) -> tuple[Path, Path]:
    """Copies of a world model and of its data."""
    shutil.copytree(toy_world_model, tmp_path / "model")
    shutil.copytree(toy.data, tmp_path / "data")
    return tmp_path / "model", tmp_path / "data"


def test_policies_are_kept_of_the_same_and_refused_of_others(
    toy, inputs, tmp_path, capsys, monkeypatch
):
    model, data = inputs
    monkeypatch.chdir(tmp_path)

    def extract(*words: str) -> str:
        one = "learner.iterations=1", "tasks=reacher-easy"
        code = main(toy.extract(Path("model"), tmp_path / "out", "data=data", *one, *words))
        return f"{code} {' '.join(capsys.readouterr().err.split())}"

    assert extract().startswith("0 extract reacher-easy")
    kept = f"0 {tmp_path}/out has 1 of 1 policies already; they are kept."
    assert extract("data=./data/", f"checkpoint={model}") == kept
    (tmp_path / "moved").mkdir()
    data.rename(tmp_path / "moved" / "data")
    assert extract("data=moved/data") == kept
    append(tmp_path / "moved" / "data", "pendulum-swingup")  # of which there is no policy
    assert extract("data=moved/data") == kept
    append(tmp_path / "moved" / "data", "reacher-easy")
    assert "out was made before data= (reacher-easy) changed" in extract("data=moved/data")
    remake(model)
    assert "before checkpoint= and data= (reacher-easy) changed" in extract("data=moved/data")


def test_a_model_that_was_begun_from_another_does_not_go_on(toy, inputs, tmp_path, capsys):
    model, _ = inputs
    command = toy.pretrain(tmp_path / "out", f"init={model}", "steps=1", "horizon.lengths=[2,2]")
    assert main(command) == 0
    assert main(command) == 0
    assert "is at step 1 of 1 already; it is kept" in " ".join(capsys.readouterr().err.split())
    remake(model)
    assert main(command) == 1
    assert "was made before init= changed" in capsys.readouterr().err


def test_data_of_another_environment_are_told(tmp_path, monkeypatch, capsys):
    own = OwnEnv(tmp_path, monkeypatch)
    first, other = get_task(own.task_file()), get_task(own.task_file("other.yaml", scale=2.0))
    tell_differences([first], "model", Suite("own", (first,)), "data")
    assert capsys.readouterr().err == ""
    tell_differences([*get_suite("mw-reach"), first], "model", Suite("own", (other,)), "data")
    said = capsys.readouterr().err
    assert 'data has own with env_kwargs {"scale": 2.0} and not {"scale": 1.0} as model' in said


def test_a_file_may_score_a_task_otherwise_but_not_change_its_environment(tmp_path, monkeypatch):
    own = OwnEnv(tmp_path, monkeypatch)
    owned = Suite("own", (*get_suite("mw-reach"), get_task(own.task_file())))
    longer = own.task_file("longer.yaml", more="episode_length: 9")
    assert tasks_of(["mw-reach", longer], owned, "model") == [
        owned["mw-reach"], get_task(longer)
    ]  # fmt: skip
    assert tasks_of("own", owned, "model") == [owned["own"]]
    other = own.task_file("other.yaml", scale=2.0)
    with pytest.raises(PwmError, match=r'env_kwargs \{"scale": 2.0\} and not \{"scale": 1.0\} as'):
        tasks_of(other, owned, "model")
    with pytest.raises(PwmError, match="as data has it; describe it as it is there"):
        require_same_environments(get_suite(other), owned, "data")
