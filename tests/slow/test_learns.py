"""The whole line in a real simulator: what is extracted beats the data it is extracted from."""

from __future__ import annotations

import json

import pytest

from pwm.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TASKS = ("pendulum-swingup", "cartpole-balance")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    """The results of a quickstart on two tasks, with the quick recipe's own settings."""
    out = tmp_path_factory.mktemp("learns") / "run"
    words = [
        "quickstart", f"out={out}", "device=cpu", f"collect.suite=[{','.join(TASKS)}]",
        "collect.episodes=100", "pretrain.steps=3000",
        "evaluate.episodes=10",
    ]  # fmt: skip
    assert main(words) == 0
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("task", TASKS)
def test_extracted_policies_beat_random_actions_and_the_data(results, task):
    extracted = results["tasks"][task]["normalized_score"]
    baselines = {
        name: scores["tasks"][task]["normalized_score"]
        for name, scores in results["baselines"].items()
    }
    assert extracted > baselines["random"] + 30, baselines
    assert extracted > baselines["data_mean"] + 20, baselines


def test_pendulum_beats_cloning_the_best_tenth(results):
    """Its data are mostly failures, so that imitation alone does not get far."""
    extracted = results["tasks"]["pendulum-swingup"]["return"]
    cloned = results["baselines"]["bc_best"]["tasks"]["pendulum-swingup"]["return"]
    assert extracted > cloned
