"""What ships of a run is small, opens like anything else, and says how it was made."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pwm
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.models.actor_critic import load_critic
from pwm.reporting.bundle import RunParts, without_places

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import ship


@pytest.fixture(scope="module")
def run(toy, toy_world_model, tmp_path_factory):
    """A run laid out as that of the quickstart, of which pendulum-swingup has a policy."""
    path = tmp_path_factory.mktemp("ship") / "run"
    shutil.copytree(toy_world_model, path / "world_model")
    shutil.copytree(toy.data, path / "data")
    words = toy.extract(path / "world_model", path / "policies", "tasks=[pendulum-swingup]")
    assert main(words) == 0
    return path


def shipped(monkeypatch, run, out, *words):
    arguments = ["ship", "--run", str(run), "--out", str(out), "--episodes", "8", "--whole", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, *words])
    ship.main()
    return out


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        out = tmp_path_factory.mktemp("checkpoints") / "toy"
        return shipped(patch, run, out, "--place", "checkpoints/toy")


@pytest.mark.slow
def test_the_policy_acts_as_before_but_for_rounding(run, bundle):
    before = pwm.load_policy(run / "policies" / "pendulum-swingup")
    after = pwm.load_policy(bundle / "policies" / "pendulum-swingup")
    obs = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    np.testing.assert_allclose(after.act(obs), before.act(obs), atol=5e-3)
    assert after.obs_mean.dtype == next(after.parameters()).dtype == torch.float32
    with pytest.raises(PwmError, match="without its critic"):
        load_critic(bundle / "policies" / "pendulum-swingup")


def test_the_world_model_s_encoder_is_the_policy_s(bundle):
    model = pwm.load_world_model(bundle / "world_model")
    policy = pwm.load_policy(bundle / "policies" / "pendulum-swingup")
    for name, tensor in model.encoder.state_dict().items():
        assert (policy.encoder.state_dict()[name] == tensor).all()


def test_a_policy_is_extracted_from_nothing_but_what_ships(toy, bundle, tmp_path):
    words = toy.extract(bundle / "world_model", tmp_path / "out", "tasks=[reacher-easy]")
    assert main([*words, f"data={bundle / 'data'}"]) == 0
    pwm.load_policy(tmp_path / "out" / "reacher-easy")


def test_the_card_has_the_facts_and_the_scores_of_what_ships(run, bundle):
    facts = json.loads((bundle / "card.json").read_text())
    results = json.loads((run / "shipped" / "results.json").read_text())
    assert facts["scores"]["mean"] == results["mean_normalized_score"]
    assert results["settings"]["policy"] == str(bundle / "policies")
    assert facts["world_model"]["updates"] == 24
    assert facts["policies"]["iterations"] == 12
    assert facts["data"]["episodes"] == 48
    assert facts["sample"]["episodes"] == 16
    assert facts["made_by"]["seconds"]["pretrain"] > 0
    text = (bundle / "README.md").read_text()
    assert f"| pendulum-swingup | {results['mean_normalized_score']:.1f} |" in text
    assert "checkpoints/toy/data" in text
    for file in bundle.rglob("*"):
        if file.suffix in (".json", ".md"):
            assert str(run.parent) not in file.read_text()


def test_shipping_again_changes_nothing_and_plays_nothing(run, bundle, monkeypatch, capsys):
    def content():
        return {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}

    before = content()
    shipped(monkeypatch, run, bundle, "--place", "checkpoints/toy")
    assert content() == before
    assert "MB" in capsys.readouterr().out


def test_a_world_model_alone_takes_recorded_scores(run, bundle, monkeypatch, tmp_path):
    words = ["--without", "policies", "data", "--evaluation", str(run / "shipped")]
    out = shipped(monkeypatch, run, tmp_path / "c" / "model", *words, "--command", "pwm x y=/a/b/c")
    assert {path.name for path in out.iterdir()} == {"world_model", "card.json", "README.md"}
    facts = json.loads((out / "card.json").read_text())
    assert facts["made_by"]["commands"] == ["pwm x y=c"]
    assert facts["policies"] is facts["sample"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0.001"], "exceeds 0.001 MB"),
        (["--whole", "9"], "whole=9 must be at most"),
        (["--data", "nowhere"], "there is no nowhere"),
    ],
)
def test_mistakes_end_in_one_sentence(run, monkeypatch, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        shipped(monkeypatch, run, tmp_path / "c" / "toy", *words)


def test_a_directory_that_is_no_run_is_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="there is no run directory"):
        shipped(monkeypatch, tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(SystemExit, match="has no world model"):
        shipped(monkeypatch, tmp_path, tmp_path / "out")


def test_a_grown_run_ships_its_last_complete_round(tmp_path):
    for number in range(3):
        (tmp_path / f"round_{number:02d}" / "world_model").mkdir(parents=True)
    task = {
        "added": 1, "episodes": 1, "rows": 2, "normalized_score": 1.0, "normalized_ci95": None,
        "episode_return": 1.0,
    }  # fmt: skip
    rounds = [
        {"number": i, "mean_normalized_score": 1.0, "mean_ci95": None, "tasks": {"t": task}}
        for i in range(2)
    ]
    (tmp_path / "rounds.json").write_text(json.dumps({"suite": "t", "rounds": rounds}))
    parts = RunParts.of(tmp_path)
    assert [path.parent.name for path in parts.world_models] == ["round_00", "round_01"]


def test_directories_of_one_machine_do_not_ship():
    found = without_places({"a": ["/srv/me/runs/x", 3], "b": "pwm f out=/srv/me/y z=c/d 1/2"})
    assert found == {"a": ["x", 3], "b": "pwm f out=y z=c/d 1/2"}
