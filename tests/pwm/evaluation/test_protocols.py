"""An evaluation of Meta-World under another protocol than the benchmark's."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from stores import make_episode

from pwm.core.errors import PwmError
from pwm.core.protocols import with_metaworld
from pwm.core.suites import Suite, get_suite, get_task
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.evaluation.score_tables import print_results
from pwm.evaluation.scores import Results, score_task
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.policy import Policy
from pwm.reporting.seeds import Seeds

REACH = get_task("mw-reach")


def test_a_protocol_is_played_and_marked(tmp_path: Path) -> None:
    size = ActorCriticSize(actor=[4], critic=[])
    actors = Actors(REACH.obs_dim, torch.ones(1, REACH.action_dim), size)
    mean, scale = torch.zeros(REACH.obs_dim), torch.ones(REACH.obs_dim)
    policy = Policy.from_observation_actor(REACH, mean, scale, actors, 0, size)
    policy.save(tmp_path / "policies" / "mw-reach")
    own = {"policy": str(tmp_path / "policies"), "episodes": 2, "workers": 1, "metaworld": "7x3"}
    results = evaluate(EvaluateConfig(**own, out=str(tmp_path / "a"), baselines=[]))
    assert results.setting.protocols == {"mw-reach": "7x3"}
    assert results.policy.tasks["mw-reach"].success_any is not None
    console = Console(width=80, record=True, file=io.StringIO())
    print_results(results, console)
    text = console.export_text()
    assert "Protocol: 7x3 on 1 task (benchmark 100x2)" in " ".join(text.split())
    assert "mdvep" in text

    store = EpisodeStore.create(tmp_path / "data", get_suite("mw-reach"))
    store.add_source("test", {})
    store.append("mw-reach", [make_episode(REACH, 3)], "test")
    store.close()
    more = {"data": str(store.path), "baselines": ["data_mean"]}
    with pytest.raises(PwmError, match="are of protocol 100x2, and 7x3 is played"):
        evaluate(EvaluateConfig(**own, out=str(tmp_path / "b"), **more))
    with pytest.raises(PwmError, match=r"action_repeat of task .* is 2 in .*, and 3 in suite"):
        shared_tasks(store, with_metaworld(get_suite("mw-reach"), "7x3"))


def test_seeds_of_different_protocols_are_not_pooled(tmp_path: Path) -> None:
    suite = Suite("own", (REACH,))
    for name, settings in (("a", {}), ("b", {"protocols": {"mw-reach": "500x1"}})):
        scores = {"mw-reach": score_task(REACH, [1.0, ord(name)], [1, 0])}
        results = Results.build(suite, scores, {}, episodes=2, seeds=[0, 1], settings=settings)
        (tmp_path / name).mkdir()
        results.save(tmp_path / name / "results.json")
    with pytest.raises(PwmError, match="played under different protocols"):
        Seeds.read([tmp_path / "a", tmp_path / "b"])
