"""The planner: values on the GPU follow the CPU's, and replays of a graph decide the same."""

from __future__ import annotations

from dataclasses import replace

import torch
from gpu.facts import DEVICE, TINY, claim, part
from torch import Tensor

from pwm.core.suites import get_suite
from pwm.evaluation.mppi import Plan, Planner, PlannerConfig
from pwm.evaluation.mppi_guides import TDMPC2Guide
from pwm.models.world_model import ModelSize, WorldModel
from pwm.runtime.seeding import stream

SIZE = ModelSize(encoder_dim=64, mlp_dim=128, latent_dim=64, task_dim=16)
CONFIG = PlannerConfig(samples=64, policy_trajectories=8, elites=8, compile="never")
_EXACT, _FAST = replace(CONFIG, precision="float32"), "never" if TINY else "always"


def check() -> None:
    """Compare values in several ways, and then decisions."""
    torch.manual_seed(0)
    model = WorldModel(SIZE, get_suite("mt80"), q_and_prior=True)
    for net in (model.reward_head, model.q_ensemble):  # else all rewards and values are zero
        torch.nn.init.normal_(net[-1].weight, std=0.05)
    model = model.eval().requires_grad_(False)
    with part("values"):
        exact = _values(Planner(model, TDMPC2Guide(model), _EXACT))
        model = model.to(DEVICE)
        for name, fast, precision, most in (
            ("eager float32", "never", "float32", 1e-4),
            ("fast float32", _FAST, "float32", 1e-4),
            ("fast bfloat16", _FAST, "bfloat16", 0.1),
        ):
            config = replace(CONFIG, compile=fast, precision=precision)
            found = _values(Planner(model, TDMPC2Guide(model), config))
            off = float((found - exact).abs().max() / exact.std())
            claim(f"values, {name}, follow the CPU's", off < most, off=off)
    with part("decisions"):
        _decisions(Planner(model, TDMPC2Guide(model), replace(_EXACT, compile=_FAST)))


def _values(planner: Planner, n: int = 9) -> Tensor:
    numbers, device = torch.Generator().manual_seed(1), planner.model.action_mask.device
    actions = planner.model.suite.action_dim
    z = torch.rand(n, SIZE.latent_dim, generator=numbers)
    plans = torch.rand(n, 3, CONFIG.samples, actions, generator=numbers) * 2 - 1
    noise = torch.randn(n, CONFIG.samples, actions, generator=numbers)
    task = (torch.arange(n) * 7 % 80).unsqueeze(1)
    given = [x.to(device) for x in (z, plans, task, noise)]
    with torch.no_grad(), planner.accelerator.arithmetic():
        return planner.value(*given).float().cpu()


def _decisions(planner: Planner) -> None:
    for n in (8, 3):
        plans = [_plan(planner, n) for _ in range(6)]
        off = max(float((p.mean - plans[0].mean).abs().max()) for p in plans)
        claim(f"{n} environments: replays decide the same", off < 1e-2, off=off)


def _plan(planner: Planner, n: int) -> Plan:
    numbers, device = torch.Generator().manual_seed(2), planner.model.action_mask.device
    suite = planner.model.suite
    obs = torch.randn(n, suite.obs_dim, generator=numbers).to(device)
    start = torch.zeros(n, CONFIG.horizon, suite.action_dim, device=device)
    task = torch.arange(n, device=device) % 80
    return planner.plan(obs, task, start, [stream(i, "proof", device) for i in range(n)])
