from __future__ import annotations

from typing import Any

import pytest

from pwm.core.errors import PwmError
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.extraction.config import ExtractConfig
from pwm.pipelines.growth_config import GrowConfig, RoundSettings
from pwm.pretraining.config import PretrainConfig
from pwm.reporting.growth_rounds import Round, TaskRound
from pwm.simulation.collect_config import CollectConfig

TASKS = ("pendulum-swingup", "cup-catch")


def growth(**settings: Any) -> GrowConfig:
    model, policies = "{out}/round_{round}/world_model", "{out}/round_{round}/policies"
    config = GrowConfig(
        out="run",
        suite=list(TASKS),
        episodes=9,
        min_episodes=9,
        device="cpu",
        collect=CollectConfig(out="run/data", suite=list(TASKS)),
        pretrain=PretrainConfig(data="run/data", out=model),
        extract=ExtractConfig(checkpoint=model, data="run/data", out=policies),
        evaluate=EvaluateConfig(policy=policies, out="{out}/round_{round}", baselines=[]),
    )
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def of_tasks(number: int, *scores: float) -> Round:
    tasks = zip(TASKS, scores, strict=True)
    return Round(
        number, 0.0, None, {name: TaskRound(2, 3, 900, score, None, 0.0) for name, score in tasks}
    )


@pytest.mark.parametrize(
    ("collect_with", "expected"),
    [
        ("best", [("run/best", [9, 9])]),
        ("current", [("run/round_01/policies", [9, 9])]),
        ("both", [("run/best", [5, 9]), ("run/round_01/policies", [4, 0])]),
    ],
)
def test_the_best_policies_the_current_ones_or_both_collect(collect_with, expected):
    """Where the current policy is the best, it makes all of its task's episodes."""
    before = [of_tasks(0, 50.0, 10.0), of_tasks(1, 40.0, 20.0)]
    collections = RoundSettings(growth(collect_with=collect_with), before).collections()
    assert [(c.policy, [c.episodes[task] for task in TASKS]) for c in collections] == expected
    assert len({c.seed for c in collections}) == len(collections)


def test_nothing_is_spent_on_what_is_solved():
    before = [of_tasks(0, 91.0, 10.0), of_tasks(1, 40.0, 20.0)]
    third = RoundSettings(growth(solved=90.0), before)
    assert third.solved() == [TASKS[0]]
    assert third.extract.tasks == [TASKS[1]]
    (collection,) = third.collections()
    assert [collection.episodes[task] for task in TASKS] == [0, 9]
    goes_on = RoundSettings(growth(solved=None), before)
    assert (goes_on.solved(), goes_on.extract.tasks) == ([], None)


def test_the_first_round_has_no_world_model_to_keep_or_to_be_surprised_by():
    config = growth()
    config.pretrain.freeze_encoder, config.pretrain.sampling.surprise = True, 0.5
    first = RoundSettings(config, []).pretrain
    assert (first.init, first.freeze_encoder, first.sampling.surprise) == (None, False, 0.0)
    second = RoundSettings(config, [of_tasks(0, 1.0, 2.0)]).pretrain
    assert (second.freeze_encoder, second.sampling.surprise) == (True, 0.5)
    config.pretrain.init = "somewhere"
    assert RoundSettings(config, []).pretrain.freeze_encoder


def test_what_scores_a_round_is_recorded_in_its_directory_unless_it_is_not_to_be(tmp_path):
    before = [of_tasks(0, 1.0, 2.0)]
    config = growth(out=str(tmp_path))
    assert RoundSettings(config, before).evaluate.record == f"{tmp_path}/round_01/episodes"
    assert RoundSettings(config, before).best_again.record is None
    (tmp_path / "round_00" / "episodes").mkdir(parents=True)
    assert RoundSettings(config, before).recorded() == [tmp_path / "round_00" / "episodes"]
    config.record_evaluation = False
    assert RoundSettings(config, before).recorded() == []
    assert RoundSettings(config, before).evaluate.record is None


def test_recording_episodes_of_another_protocol_is_refused():
    config = growth(suite="mw-push")
    config.collect.suite = "mw-push"
    config.evaluate.metaworld = "500x1"
    with pytest.raises(PwmError, match="give both the same, or record_evaluation=false"):
        config.require_possible_rounds()
