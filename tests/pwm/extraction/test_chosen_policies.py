from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.extraction.chosen_policies import ChosenPolicies
from pwm.extraction.config import ExtractConfig
from pwm.extraction.expected_scores import ExpectedScore
from pwm.extraction.extract import extract
from pwm.models.actor_critic import ActorCriticSize, Actors

TASKS = get_suite(["reacher-easy", "pendulum-swingup"]).tasks


def actors(value: float) -> Actors:
    found = Actors(1, torch.ones(2, 1), ActorCriticSize(actor=[], critic=[]))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.fill_(value)
    return found


def choice() -> ChosenPolicies:
    """Which finds 1 and 5 first, then 2 and 4, and then 0 and 6."""
    scores = iter([[1.0, 5.0], [2.0, 4.0], [0.0, 6.0]])
    return ChosenPolicies(
        lambda policies: [ExpectedScore(x, x - 1, x + 1, 0.0, 0.0) for x in next(scores)],
        "expected_score",
        lambda given: [None, None],
        actors(0.0),
    )


def kept(chosen: ChosenPolicies) -> list[float]:
    return chosen.actors.mean[0].weight.flatten().tolist()


def test_the_best_of_each_task_is_kept() -> None:
    chosen = choice()
    metrics = chosen.consider(actors(1.0), 0)
    assert metrics["expected_score"].tolist() == [1.0, 5.0]
    assert metrics["expected_score_low"].tolist() == [0.0, 4.0]
    chosen.consider(actors(2.0), 10)
    assert kept(chosen) == [2.0, 1.0]
    chosen.consider(actors(3.0), 20)
    assert kept(chosen) == [2.0, 3.0]
    assert chosen.first.tolist() == [1.0, 5.0]
    assert chosen.score.tolist() == [2.0, 6.0]
    assert chosen.at.tolist() == [10.0, 20.0]

    console = Console(width=100, file=io.StringIO())
    console.print(chosen.table(TASKS, "means of 4 episodes"))
    shown = console.file.getvalue()
    rows = [
        line.split()
        for line in shown.splitlines()
        if line.strip().startswith(("reacher", "pendulum"))
    ]
    assert rows == [["reacher-easy", "1.0", "2.0", "10"], ["pendulum-swingup", "5.0", "6.0", "20"]]
    assert "The best of 3" in shown


def test_a_choice_that_goes_on_from_a_checkpoint_is_the_same() -> None:
    whole, first, second = choice(), choice(), choice()
    for step in range(3):
        whole.consider(actors(step + 1.0), step)
    first.consider(actors(1.0), 0)
    second.load({name: tensor.clone() for name, tensor in first.tensors().items()})
    second._judged([])  # what the first has seen
    for step in (1, 2):
        second.consider(actors(step + 1.0), step)
    assert all(value.equal(second.tensors()[name]) for name, value in whole.tensors().items())


def test_what_would_keep_policies_of_other_latents_is_refused(tmp_path) -> None:
    config = ExtractConfig(checkpoint="a", data="b", out=str(tmp_path), select="simulator")
    config.finetune.enabled = True
    with pytest.raises(PwmError, match=r"finetune\.enabled changes the latents"):
        config.validate()


def test_extraction_alone_plays_nothing(tmp_path) -> None:
    config = ExtractConfig(checkpoint="a", data="b", out=str(tmp_path), select="simulator")
    with pytest.raises(PwmError, match=r"pwm\.evaluation\.played_choice"):
        extract(config)
