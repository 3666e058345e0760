"""What was imported and converted works everywhere: pretraining goes on, and policies come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tdmpc2_files import CHECKPOINTS, make_chunk

import pwm
from pwm.cli import main as cli
from pwm.core.suites import SUITES
from pwm.models.world_model import WorldModel
from pwm.runtime.training_checkpoints import list_steps

MT30 = SUITES["mt30"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A directory with an imported model and a store converted from two tasks' data."""
    directory = tmp_path_factory.mktemp("published")
    ids = [MT30.id("walker-run"), MT30.id("pendulum-swingup")] * 4
    make_chunk(directory / "chunk_0.pt", MT30, ids, 30, seed=0)
    words = f"source={directory}/chunk_0.pt suite=mt30 out={directory}/data"
    assert cli.main(["convert", *words.split(), "tasks=[walker-run,pendulum-swingup]"]) == 0
    words = f"checkpoint={CHECKPOINTS['tdmpc2-old']} suite=mt30 out={directory}/model"
    assert cli.main(["import", *words.split()]) == 0
    return directory


def pretrain(published: Path, out: Path, *words: str) -> WorldModel:
    settings = "device=cpu steps=4 batch_size=8 horizon.lengths=[2] warmup=1 save_every=2 lr=1e-3"
    paths = f"data={published}/data init={published}/model out={out}"
    code = cli.main(["pretrain", *paths.split(), *settings.split(), *words])
    assert code == 0
    return pwm.load_world_model(out)


def test_pretraining_goes_on_from_an_imported_model(published, tmp_path):
    before = pwm.load_world_model(published / "model")
    after = pretrain(published, tmp_path / "run")
    assert after.size == before.size
    assert after.suite == MT30
    assert after.has_q
    assert not after.normalize_obs
    changed = {
        name: not torch.equal(value, before.state_dict()[name])
        for name, value in after.state_dict().items()
    }
    for network in ("encoder", "dynamics", "reward_head", "prior", "q_ensemble", "q_target"):
        assert any(changed[name] for name in changed if name.startswith(network)), network
    trained = [MT30.id("walker-run"), MT30.id("pendulum-swingup")]
    moved = (after.task_emb.weight != before.task_emb.weight).any(1).nonzero().flatten().tolist()
    assert moved == sorted(trained)
    # it begins at the imported weights: four small steps do not lead far
    for name, value in after.state_dict().items():
        assert (value - before.state_dict()[name]).abs().max() < 0.05


def test_a_continued_run_resumes_from_its_own_checkpoint(published, tmp_path):
    whole = pretrain(published, tmp_path / "whole")
    pretrain(published, tmp_path / "run")
    last, newest = list_steps(tmp_path / "run" / "checkpoints")
    assert last.name < newest.name
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    resumed = pretrain(published, tmp_path / "run")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_training_on_some_of_the_tasks_keeps_the_models_ids(published, tmp_path):
    before = pwm.load_world_model(published / "model")
    after = pretrain(published, tmp_path / "run", "suite=pendulum-swingup")
    assert after.suite == MT30
    moved = (after.task_emb.weight != before.task_emb.weight).any(1).nonzero().flatten().tolist()
    assert moved == [MT30.id("pendulum-swingup")]


def test_data_of_other_tasks_are_refused(published, tmp_path, capsys):
    make_chunk(tmp_path / "chunk_0.pt", SUITES["mt80"], [40] * 4, 30, seed=0)
    words = f"source={tmp_path}/chunk_0.pt suite=mt80 out={tmp_path}/data"
    assert cli.main(["convert", *words.split(), f"tasks=[{SUITES['mt80'].names[40]}]"]) == 0
    words = f"data={tmp_path}/data init={published}/model out={tmp_path}/run device=cpu"
    assert cli.main(["pretrain", *words.split()]) == 1
    assert "no task of suite 'mt30' is in" in capsys.readouterr().err


def test_what_is_trained_can_be_exported_again(published, tmp_path):
    pretrain(published, tmp_path / "run")
    words = f"checkpoint={tmp_path}/run out={tmp_path}/x.pt"
    assert cli.main(["export", *words.split()]) == 0
    words = f"checkpoint={tmp_path}/x.pt suite=mt30 out={tmp_path}/back"
    assert cli.main(["import", *words.split()]) == 0
    trained = pwm.load_world_model(tmp_path / "run").state_dict()
    back = pwm.load_world_model(tmp_path / "back").state_dict()
    assert all(torch.equal(back[name], value) for name, value in trained.items())


def test_a_model_without_q_and_prior_does_not_get_them_on_the_way(published, tmp_path, capsys):
    state = torch.load(CHECKPOINTS["tdmpc2-old"], weights_only=True)["model"]
    kept = {key: value for key, value in state.items() if "_pi" not in key and "_Qs" not in key}
    torch.save({"model": kept}, tmp_path / "plain.pt")
    words = f"checkpoint={tmp_path}/plain.pt suite=mt30 out={tmp_path}/plain"
    assert cli.main(["import", *words.split()]) == 0
    words = f"init={tmp_path}/plain data={published}/data out={tmp_path}/run q_and_prior=true"
    assert cli.main(["pretrain", *words.split(), "device=cpu"]) == 1
    assert "plain has neither Q nor prior; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("finetune", [False, True])
def test_a_policy_is_extracted_from_what_was_downloaded(published, tmp_path, capsys, finetune):
    settings = (
        "device=cpu pool=64 learner.iterations=3 learner.batch_size=8 learner.horizon=3 "
        f"finetune.enabled={finetune} finetune.batch_size=8"
    )
    paths = f"checkpoint={published}/model data={published}/data out={tmp_path}/policies"
    words = ["extract", "tasks=[walker-run]", *paths.split(), *settings.split()]
    assert cli.main(words) == 0
    policy = pwm.load_policy(tmp_path / "policies" / "walker-run")
    action = policy.act(np.zeros((5, 24), np.float32))
    assert action.shape == (5, 6)
    assert (np.abs(action) <= 1).all()
    words = f"policy={tmp_path}/policies data={published}/data out={tmp_path} episodes=1"
    assert cli.main(["evaluate", *words.split(), "baselines=[data_mean]"]) == 1
    assert "pieces of episodes of walker-run, which cannot be scored" in capsys.readouterr().err
