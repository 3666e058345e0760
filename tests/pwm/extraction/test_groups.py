from __future__ import annotations

import dataclasses
import resource
import sys
from types import SimpleNamespace

import pytest
import torch
from forked import result_of_fork
from omegaconf import OmegaConf

from configs import changed
from pwm.cli.main import config_directory
from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.extraction import extract as extraction
from pwm.extraction import groups
from pwm.extraction.config import ActorCriticConfig, ExtractConfig
from pwm.extraction.groups import bytes_a_task, largest_group, planned_groups
from pwm.extraction.inputs import Inputs
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.q_functions import make_q
from pwm.models.world_model import ModelSize, WorldModel
from pwm.runtime.acceleration import Acceleration, Accelerator
from pwm.runtime.checkpoint import save_checkpoint

SIZE = ModelSize(encoder_dim=16, mlp_dim=128, latent_dim=128, task_dim=8)
CONFIG = ActorCriticConfig(batch_size=128, horizon=8)
TASKS = get_suite("mt30").tasks[:7]
NAMES = [task.name for task in TASKS]


def plan(out, names=NAMES, size=3) -> list[list[str]]:
    suite = get_suite("mt30")
    planned = planned_groups(out, [suite[name] for name in names], lambda tasks: size)
    return [[task.name for task in group] for group in planned]


def finish(out, *names: str) -> None:
    for name in names:
        save_checkpoint(out / name, "policy", {}, {})


def test_tasks_are_cut_in_order_by_a_size_that_may_depend_on_their_number(tmp_path):
    assert plan(tmp_path) == [NAMES[:3], NAMES[3:6], NAMES[6:]]
    asked = []
    planned_groups(tmp_path / "other", TASKS, lambda tasks: asked.append(tasks) or 7)
    assert asked == [7]


def test_a_plan_holds_whatever_fits_later(tmp_path):
    first = plan(tmp_path)
    assert plan(tmp_path, size=1) == first
    finish(tmp_path, *NAMES[:3])
    assert plan(tmp_path, size=2) == first


def test_a_group_that_is_partly_saved_is_learned_as_a_whole(tmp_path):
    first = plan(tmp_path)
    finish(tmp_path, *NAMES[:2])
    assert plan(tmp_path) == first
    finish(tmp_path, *NAMES)
    assert plan(tmp_path) == first


def test_other_tasks_join_the_plan(tmp_path):
    assert plan(tmp_path, NAMES[:3], size=2) == [NAMES[:2], NAMES[2:3]]
    assert plan(tmp_path, size=4) == [NAMES[:2], NAMES[2:3], NAMES[3:7]]


def test_a_group_is_left_aside_while_not_all_of_it_is_asked_for(tmp_path):
    plan(tmp_path)
    assert plan(tmp_path, NAMES[:2], size=3) == [NAMES[:2]]
    finish(tmp_path, *NAMES[:2])
    assert plan(tmp_path) == [NAMES[:3], NAMES[3:6], NAMES[6:], NAMES[:2]]


def test_policies_of_before_there_were_plans_count(tmp_path):
    finish(tmp_path, NAMES[1], NAMES[4])
    left = [name for name in NAMES if name not in (NAMES[1], NAMES[4])]
    assert plan(tmp_path) == [left[:3], left[3:]]


@pytest.mark.parametrize("content", [b"", b"{", b"5", b"[5]", b"[[5]]", b"\xff"])
def test_a_damaged_plan_is_refused(content, tmp_path):
    plan(tmp_path)
    (tmp_path / "groups" / "plan.json").write_bytes(content)
    with pytest.raises(PwmError, match=r"plan.json is damaged"):
        plan(tmp_path)


def make_model() -> WorldModel:
    return WorldModel(SIZE, get_suite("mt80")).requires_grad_(False)


@pytest.mark.parametrize(
    ("free", "tasks", "size"), [(100, 80, 16), (10, 80, 10), (10, 12, 6), (10, 6, 6), (0.1, 80, 1)]
)
def test_groups_are_equal_and_as_few_as_fit(monkeypatch, free, tasks, size):
    model = make_model()
    room = int(free * bytes_a_task(model, CONFIG) / 0.7) + 1
    monkeypatch.setattr(groups, "free_memory", lambda: room)
    assert largest_group(model, CONFIG, tasks) == size


def test_critics_without_hidden_layers_take_memory_too():
    plain = dataclasses.replace(CONFIG.networks, critic=[])
    assert bytes_a_task(make_model(), dataclasses.replace(CONFIG, networks=plain)) > 0


def test_rows_and_networks_of_q_functions_take_memory():
    model, plain = make_model(), bytes_a_task(make_model(), CONFIG)
    of_q = {
        (members, pool): bytes_a_task(
            model, changed(CONFIG, q={"members": members, "pool": pool, "hidden": [256, 256]})
        )
        for members in (0, 1, 2)
        for pool in (1000, 2000)
    }
    assert of_q[0, 2000] == plain
    rows = 1000 * 4 * (2 * model.suite.obs_dim + model.suite.action_dim + 2)
    assert of_q[1, 2000] - of_q[1, 1000] == of_q[2, 2000] - of_q[2, 1000] == rows
    weights = sum(p.numel() for p in make_q(1, model.size.latent_dim + 6, q_config()).parameters())
    assert of_q[2, 1000] - of_q[1, 1000] > 4 * 5 * weights, "gradients, moments and slow copies"


def q_config() -> ActorCriticConfig:
    return changed(CONFIG, q={"members": 1, "hidden": [256, 256]})


def peak_of_an_iteration(batch_size: int) -> int:
    """Bytes of this process after it has learned four tasks."""
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    model = make_model()
    learner = ActorCriticLearner(model, model.suite.tasks[:4], config, 0)
    start = torch.rand(4, batch_size, model.size.latent_dim)
    learner.iteration(Inputs(start, learner.noise()))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_the_estimate_covers_what_an_iteration_takes():
    """Peak memory of a process that learns four tasks, beyond one with a hundredth of the batch."""
    peaks = [result_of_fork(peak_of_an_iteration, batch) for batch in (4, CONFIG.batch_size)]
    small = bytes_a_task(make_model(), dataclasses.replace(CONFIG, batch_size=4))
    estimate = 4 * (bytes_a_task(make_model(), CONFIG) - small)
    assert 0.2 * estimate < peaks[1] - peaks[0] < 1.1 * estimate


@pytest.mark.parametrize(
    ("preset", "tasks", "measured"), [("48M", 80, 34.99), ("48M", 27, 12.25), ("5M", 80, 14.48)]
)
def test_compiled_bfloat16_is_estimated_above_what_a_gpu_held_and_below_twice_that(
    preset, tasks, measured
):
    """GB at the peak, measured on an H200, batch 512, H 16; groups of 80 fit a GPU of 80 GB."""
    size = ModelSize(**OmegaConf.load(config_directory() / "model" / f"{preset}.yaml"))
    with torch.device("meta"):
        model = WorldModel(size, get_suite("mt80"))
    config, device = ActorCriticConfig(), torch.device("cpu")
    fast = Accelerator(device, bfloat16=True, fused=True)
    estimate = 1e-9 * tasks * bytes_a_task(model, config, (), fast)
    assert measured < estimate < 2 * measured
    exact = Accelerator(device, fused=True)
    a_task = [bytes_a_task(model, config, (), how) for how in (fast, exact, Accelerator(device))]
    assert a_task == sorted(a_task)
    assert a_task[-1] == bytes_a_task(model, config)


@pytest.mark.parametrize(("preset", "free"), [("48M", 79e9), ("5M", 45e9)])
def test_all_eighty_tasks_fit_a_gpu_at_once_when_compiled_in_bfloat16(preset, free, monkeypatch):
    on_gpu = SimpleNamespace(bins=SimpleNamespace(device=torch.device("cuda")), episodic=False)
    on_gpu.size = ModelSize(**OmegaConf.load(config_directory() / "model" / f"{preset}.yaml"))
    fast = Accelerator(torch.device("cuda"), bfloat16=True, fused=True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(free)))
    monkeypatch.setattr(Acceleration, "prepare", lambda self, device: fast)
    assert extraction._group_size(ExtractConfig(), on_gpu, (), 80) == 80
    assert extraction._group_size(ExtractConfig(group_size=7), on_gpu, (), 80) == 7
    assert largest_group(on_gpu, ActorCriticConfig(), 80) < 80, "as eager code would take"
