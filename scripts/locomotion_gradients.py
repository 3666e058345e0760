"""Gradients through the locomotion environments against finite differences, as a table.

    python scripts/locomotion_gradients.py out=docs/results/locomotion-gradients.md

Each comparison differentiates a random projection of the rewards and the last observation of a few
control steps with respect to their actions: once by the simulator's adjoint, and once by central
differences of single components of the actions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.catalog import ENTRIES, make_simulation
from pwm.locomotion.simulation import ArticulatedSimulation

CONTROL_STEPS = (1, 4, 8)
SEEDS = (0, 1, 2)
CHECKS = 60
WARM_UP = 15  # control steps of random actions before, so that robots touch the ground
DIFFERENCE = 4e-3
MUSCLES_DIFFERENCE = 3.2e-2  # what one muscle does is otherwise lost in rounding


@dataclass(frozen=True)
class Comparison:
    """Derivatives with respect to the same components of actions, (checks,) each."""

    adjoint: Tensor
    differences: Tensor

    @property
    def correlation(self) -> float:
        """Pearson's, over the components."""
        return float(torch.corrcoef(torch.stack([self.adjoint, self.differences]))[0, 1])

    @property
    def median_error(self) -> float:
        """Relative to the difference quotient, of the median component."""
        error = (self.adjoint - self.differences).abs()
        return float((error / self.differences.abs().clamp_min(1e-9)).median())


def compare(
    name: str, *, steps: int, seed: int, checks: int = CHECKS, device: str = "cpu"
) -> Comparison:
    """Adjoint against central differences over ``steps`` control steps of an environment."""
    chance = torch.Generator().manual_seed(seed)
    sizes = make_simulation(name, num_envs=1, seed=seed, device=device)
    components = steps * sizes.action_size
    difference = MUSCLES_DIFFERENCE if name == "humanoid_muscles" else DIFFERENCE
    chosen = torch.randperm(components, generator=chance)[:checks]
    actions = 0.4 * torch.randn(components, generator=chance).clamp(-2, 2)
    actions = actions.repeat(1 + 2 * len(chosen), 1)
    for row, component in enumerate(chosen):
        actions[1 + row, component] += difference
        actions[1 + len(chosen) + row, component] -= difference
    actions = actions.to(device).requires_grad_()
    simulation = make_simulation(name, num_envs=len(actions), seed=seed, device=device)
    simulation.load_state(_beginning(sizes, len(actions), chance))
    values = _projection(simulation, actions.view(len(actions), steps, -1), chance)
    (gradient,) = torch.autograd.grad(values[0], actions)
    plus, minus = values.detach()[1:].chunk(2)
    differences = (plus - minus) / (2 * difference)
    return Comparison(gradient[0, chosen].double().cpu(), differences.cpu())


def _beginning(
    single: BatchedSimulation, copies: int, chance: torch.Generator
) -> dict[str, Tensor]:
    """Copies of the state that random actions led one environment to."""
    device = single.reset().device
    for _ in range(WARM_UP):
        with torch.no_grad():
            noise = torch.randn(1, single.action_size, generator=chance)
            single.step(0.3 * noise.clamp(-2, 2).to(device))
    state = single.state()
    batched = {name for name, value in state.items() if value.dim() > 0 and value.shape[0] == 1}
    return {
        name: value.repeat(copies, *[1] * (value.dim() - 1)) if name in batched else value
        for name, value in state.items()
    }


def _projection(simulation: BatchedSimulation, actions: Tensor, chance: torch.Generator) -> Tensor:
    total = torch.zeros(len(actions), dtype=torch.double, device=actions.device)
    for index in range(actions.shape[1]):
        step = simulation.step(actions[:, index])
        if bool((step.terminated | step.truncated).any()):
            raise RuntimeError(f"An episode of {simulation.name} ended within a comparison.")
        total = total + step.reward.double() * float(torch.randn((), generator=chance))
    weights = torch.randn(simulation.observation_size, generator=chance).double()
    weights = weights.to(actions.device)
    return total + step.final_observation.double() @ weights


def is_differentiable_robot(name: str) -> bool:
    """Whether a name is of an articulated robot here; toys' episodes end within a comparison."""
    return isinstance(make_simulation(name, num_envs=1), ArticulatedSimulation)


def table() -> str:
    """Markdown: an environment and number of control steps per row, over all seeds."""
    rows = [
        "| environment | actions | control steps | correlation | median relative error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in filter(is_differentiable_robot, ENTRIES):
        for steps in CONTROL_STEPS:
            found = [compare(name, steps=steps, seed=seed) for seed in SEEDS]
            joined = Comparison(
                torch.cat([part.adjoint for part in found]),
                torch.cat([part.differences for part in found]),
            )
            size = make_simulation(name, num_envs=1).action_size
            rows.append(
                f"| `{name}` | {size} | {steps} | {joined.correlation:.4f} | "
                f"{100 * joined.median_error:.2f} % |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows)


PAGE = """# Gradients through the locomotion environments

Derivatives of a random projection of rewards and of the last observation with respect to the
actions of some control steps: the simulator's adjoint against central differences of single
components (up to {checks} components from each of {seeds} states, differences of
{difference:g} either way, {muscles_difference:g} of single muscles, whose effects are small beside
rounding). Both are in single precision, and differences of a state that meets the ground are taken
over the kinks of contact and of joint limits; both add to the errors below.

{table}

Made by `python scripts/locomotion_gradients.py`.
"""


def main(arguments: list[str]) -> None:
    """Write the page to ``out=...``, or print its table."""
    options = dict(argument.split("=", 1) for argument in arguments)
    page = PAGE.format(
        checks=CHECKS,
        seeds=len(SEEDS),
        difference=DIFFERENCE,
        muscles_difference=MUSCLES_DIFFERENCE,
        table=table(),
    )
    if "out" in options:
        Path(options["out"]).write_text(page)


if __name__ == "__main__":
    main(sys.argv[1:])
