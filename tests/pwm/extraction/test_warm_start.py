from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pwm.cli.main import main
from pwm.models.actor_critic import load_critic
from pwm.models.policy import load_policy


@pytest.fixture(scope="module")
def earlier(toy, toy_world_model, tmp_path_factory) -> Path:
    """A finished extraction of both toy tasks; not to be written into."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    assert main(toy.extract(toy_world_model, out)) == 0
    return out


def networks(out: Path, task: str) -> dict[str, torch.Tensor]:
    """What extraction learned: the actor and critics of one task, not the encoder."""
    actor = load_policy(out / task).actor.state_dict()
    return actor | load_critic(out / task).values.state_dict()


def test_an_extraction_begins_with_the_weights_of_an_earlier_one(
    toy, toy_world_model, earlier, tmp_path
):
    still = [
        "learner.optim.actor_lr=0",
        "learner.optim.critic_lr=0",
        "learner.optim.lr_final=0",
        "seed=7",
    ]
    words = toy.extract(toy_world_model, tmp_path / "warm", f"init={earlier}", *still)
    assert main(words) == 0
    assert main(toy.extract(toy_world_model, tmp_path / "cold", *still)) == 0
    for task in toy.tasks:
        begun, found = networks(earlier, task), networks(tmp_path / "warm", task)
        cold = networks(tmp_path / "cold", task)
        assert begun.keys() == found.keys()
        for name, weight in begun.items():
            assert torch.equal(found[name], weight), name
        assert any(not torch.equal(cold[name], weight) for name, weight in begun.items())


def test_it_goes_on_learning_and_can_be_resumed(toy, toy_world_model, earlier, tmp_path):
    words = toy.extract(toy_world_model, tmp_path / "warm", f"init={earlier}")
    assert main(words) == 0
    task = toy.tasks[0]
    before, after = networks(earlier, task), networks(tmp_path / "warm", task)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert main(words) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("learner.networks.actor=[4]", "its networks is"),
        ("learner.discount=0.9", "its discount is 0.99, and 0.9 is asked for"),
        ("learner.reward_units=real", "its reward_units is symlog"),
        ("learner.critic.scale_values=true", "its scale of values is 1.0"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_anything_is_written(
    change, message, toy, toy_world_model, earlier, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(toy.extract(toy_world_model, out, f"init={earlier}", change)) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()


def test_a_task_without_earlier_networks_is_refused(
    toy, toy_world_model, earlier, tmp_path, capsys
):
    words = toy.extract(toy_world_model, tmp_path / "out", f"init={earlier / toy.tasks[0]}")
    assert main(words) == 1
    assert f"no policy for {toy.tasks[1]}" in " ".join(capsys.readouterr().err.split())
