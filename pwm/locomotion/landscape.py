"""``pwm landscape``: returns and gradients through a simulator, and through a world model of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from rich.table import Table
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.progress import console, progress_bar
from pwm.core.settings import require_inputs, setting
from pwm.core.validation import (
    require_at_least,
    require_positive,
    require_resume,
    require_seed,
)
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.gradient_study import (
    ModelWorld,
    Sampled,
    SimulatorWorld,
    World,
    compared,
    finite_differences,
    first_order,
    ruggedness,
    slice_along,
    steepest,
)
from pwm.locomotion.learner import task_of
from pwm.locomotion.policy_space import PolicySpace
from pwm.models.actor_critic import ActorCriticSize, Actors, action_masks
from pwm.models.policy import load_policy
from pwm.models.world_model import load_world_model
from pwm.reporting.landscape_plot import landscape_picture
from pwm.runtime.device import resolve_device, use_device
from pwm.runtime.run_dir import open_run, require_output
from pwm.runtime.seeding import stream, stream_seed

_SIMULATOR, _MODEL = "simulator", "world model"


@dataclass
class LandscapeConfig:
    """Settings of ``pwm landscape``.

    Attributes:
        task: a locomotion environment.
        out: gets ``landscape.json`` and ``landscape.svg``.
        checkpoint: a run of pwm by ``pwm compare``, such as ``runs/x/ant/pwm/seed0``: its world
            model is studied beside the simulator, with its policy. Without it the policy has
            random weights and sees observations, and there is no world model.
        seed: of weights, states, noise and directions.
        horizons: lengths in steps that gradients are taken over.
        samples: rollouts whose gradients are taken, one by one.
        many: rollouts of finite differences, which the gradients are compared with.
        directions: random ones in the space of weights, along which derivatives are taken, two or
            more, since correlations are over them.
        distance: of finite differences, in units of actions.
        points, radius: of returns along a direction, in units of actions.
        contact_stiffness: multiples of the contacts' stiffness, at each of which gradients through
            the simulator are compared with its finite differences again.
    """

    task: str = MISSING
    out: str = MISSING
    checkpoint: str | None = setting(None, input_path=True)
    seed: int = 0
    device: str = setting("auto", may_change=True)
    resume: str = "auto"
    horizons: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])
    samples: int = 256
    many: int = 2048
    directions: int = 8
    distance: float = 0.005
    points: int = 31
    radius: float = 1.0
    contact_stiffness: list[float] = field(default_factory=list)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_at_least(self, 2, "directions", "samples", "many", "points")
        require_positive(self, "distance", "radius")
        if not self.horizons or min(self.horizons) < 1:
            raise PwmError(f"horizons={self.horizons} must be lengths of at least 1 step.")
        if min(self.contact_stiffness, default=1) <= 0:
            raise PwmError(
                f"contact_stiffness={self.contact_stiffness} must be multiples above 0; 10 makes "
                "contacts ten times as stiff as the environment's."
            )
        require_resume(self)
        require_inputs(self)
        resolve_device(self.device)
        require_output(self)


class Worlds:
    """The simulator and, given a checkpoint, the world model of a study, and the policy in both.

    Args:
        config: see :class:`LandscapeConfig`.
        device: where all of it is.
        contact_stiffness: of the simulator.

    Raises:
        PwmError: for a checkpoint that is no run of pwm, or of another task, or a stiffness of a
            task without contacts.
    """

    def __init__(
        self, config: LandscapeConfig, device: str, contact_stiffness: float = 1.0
    ) -> None:
        self._config, self._device, self._stiffness = config, device, contact_stiffness
        self._open: dict[int, BatchedSimulation] = {}
        first = self.simulation(config.samples)
        self._model = None
        if config.checkpoint is None:
            self.actors = _untrained(first, config.seed).to(device)
        else:
            path = Path(config.checkpoint)
            _require_run_of_pwm(path)
            self._model = load_world_model(path / "world_model", device)
            policy = load_policy(path / "policy", device)
            if policy.task.name != config.task:
                raise PwmError(
                    f"{path} is a run of {policy.task.name} and task={config.task}; give a "
                    "checkpoint of that task."
                )
            self.actors = policy.actor

    def simulation(self, count: int) -> BatchedSimulation:
        """One of ``count`` environments."""
        if count not in self._open:
            self._open[count] = make_simulation(
                self._config.task,
                num_envs=count,
                device=self._device,
                contact_stiffness=self._stiffness,
            )
        return self._open[count]

    def simulator(self, count: int) -> SimulatorWorld:
        """The simulator with ``count`` samples."""
        return SimulatorWorld(self.simulation(count), self._features(count))

    def _features(self, count: int) -> Callable[[Tensor], Tensor]:
        model = self.model(count)
        return (lambda observation: observation) if model is None else model.encode

    def model(self, count: int) -> ModelWorld | None:
        """The world model with ``count`` samples, if there is one."""
        return None if self._model is None else ModelWorld(self._model, self.simulation(count))

    def differentiable(self) -> dict[str, World]:
        """Where a gradient can be taken, with as many samples as gradients are to have."""
        count = self._config.samples
        found: dict[str, World] = {}
        if self.simulation(count).differentiable:
            found[_SIMULATOR] = self.simulator(count)
        if (model := self.model(count)) is not None:
            found[_MODEL] = model
        return found

    def all(self, count: int) -> dict[str, World]:
        """Where a return can be had."""
        model = self.model(count)
        return {_SIMULATOR: self.simulator(count)} | ({} if model is None else {_MODEL: model})

    def close(self) -> None:
        """Release the simulators."""
        for simulation in self._open.values():
            simulation.close()


def _require_run_of_pwm(path: Path) -> None:
    if not all((path / part).is_dir() for part in ("world_model", "policy")):
        raise PwmError(
            f"checkpoint={path} is no run of pwm by `pwm compare`: it lacks a world_model or a "
            "policy; give the directory of one, such as runs/x/ant/pwm/seed0."
        )


def _untrained(simulation: BatchedSimulation, seed: int) -> Actors:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "policy"))
        masks = action_masks([task_of(simulation)], simulation.action_size)
        size = ActorCriticSize(actor=[64, 64], critic=[])
        return Actors(simulation.observation_size, masks, size)


def landscape(config: LandscapeConfig) -> Path:
    """Measure gradients and returns of a policy, by horizon and along directions.

    Returns:
        The picture's path.

    Raises:
        PwmError: for settings or a checkpoint that do not fit.
    """
    config.validate()
    device = str(use_device(config.device))
    out = Path(config.out)
    with open_run(out, "landscape", config):
        every = [Worlds(config, device, factor) for factor in (1.0, *config.contact_stiffness)]
        try:
            found = _study(config, *every)
        finally:
            for worlds in every:
                worlds.close()
        write_atomically(out / "landscape.json", json.dumps(found, indent=1).encode())
        write_atomically(out / "landscape.svg", landscape_picture(config.task, found).encode())
    if config.contact_stiffness:
        console.print(_stiffness_table(found))
    console.print(f"Landscape: {out / 'landscape.svg'} and landscape.json", soft_wrap=True)
    return out / "landscape.svg"


@dataclass(frozen=True)
class _Derivatives:
    """What derivatives are taken of: the same policy, directions, states and noise everywhere.

    Attributes:
        space: of the policy's weights.
        directions: in it.
        horizons: in steps.
        of_samples, of_many: (H, samples, A) and (H, many, A) noise of actions.
        seed: of the states that rollouts begin in.
        distance: of finite differences.
    """

    space: PolicySpace
    directions: list[list[Tensor]]
    horizons: list[int]
    of_samples: Tensor
    of_many: Tensor
    seed: int
    distance: float

    def differences(self, worlds: Worlds, noise: Tensor) -> Sampled:
        """Finite differences of the simulator, as many samples as there is noise for."""
        return finite_differences(
            worlds.simulator(noise.shape[1]), self.space, self.directions, self.horizons, noise,
            self.seed, self.distance,
        )  # fmt: skip

    def compared(self, worlds: Worlds, advance: Callable[[str], None]) -> dict[str, Any]:
        """Gradients wherever one can be taken, beside what chance alone would give."""
        advance("finite differences")
        truth = self.differences(worlds, self.of_many)
        by_chance = self.differences(worlds, self.of_samples)
        advance("gradients")
        arguments = self.space, self.directions, self.horizons, self.of_samples, self.seed
        return {
            "size": truth.mean.square().mean(-1).sqrt().tolist(),
            "gradients": {
                name: compared(first_order(world, *arguments), truth)
                for name, world in worlds.differentiable().items()
            },
            "finite_differences": compared(by_chance, truth),
        }


def _study(config: LandscapeConfig, worlds: Worlds, *others: Worlds) -> dict[str, Any]:
    """The study of a simulator, and of others with ``config.contact_stiffness``."""
    length = worlds.simulation(config.samples).episode_length
    horizons = sorted({min(h, length) for h in config.horizons})
    if max(config.horizons) > length:
        console.print(f"Episodes of {config.task} have {length} steps, and horizons no more.")
    where = worlds.differentiable()
    if _SIMULATOR not in where:
        console.print(f"{config.task} cannot be differentiated: gradients are the model's alone.")
    seed, space = stream_seed(config.seed, "states"), PolicySpace(worlds.actors)
    generator = stream(config.seed, "landscape", worlds.simulation(config.samples).detach().device)

    def noise(count: int) -> Tensor:
        size = worlds.actors.action_mask.shape[1]
        shape = horizons[-1], count, size
        return torch.randn(shape, generator=generator, device=generator.device)

    of_samples, of_many = noise(config.samples), noise(config.many)
    with torch.no_grad():
        seen = worlds.simulator(config.samples).roll_out(space.at(), of_samples, seed).features
    states = seen.flatten(0, 1)
    directions = [space.random(generator, states) for _ in range(config.directions)]
    derivatives = _Derivatives(
        space, directions, horizons, of_samples, of_many, seed, config.distance
    )
    with progress_bar() as progress:
        steps = 2 * (1 + len(others)) + 1
        bar = progress.add_task(f"landscape {config.task}", total=steps, note="")

        def advance(note: str) -> None:
            progress.update(bar, advance=1, note=note)

        found = derivatives.compared(worlds, advance)
        lines = {"random": directions[0]} | {
            f"gradient of the {name}": steepest(world, space, horizons[-1], of_samples, seed)
            for name, world in where.items()
        }
        advance("slices")
        slices = _slices(config, worlds, space, lines, torch.zeros_like(of_samples))
        by_stiffness = {
            f"{factor:g}": derivatives.compared(other, advance)
            for factor, other in zip(config.contact_stiffness, others, strict=True)
        }
    return {
        "task": config.task,
        "horizons": horizons,
        **found,
        "slices": slices,
        "contact_stiffness": by_stiffness,
    }


def _stiffness_table(found: dict[str, Any]) -> Table:
    """Gradients through the simulator over the longest horizon, by stiffness of contacts."""
    horizon = found["horizons"][-1]
    table = Table(title=f"gradients over {horizon} steps", box=None, pad_edge=False)
    for heading in ("contact stiffness", "variance", "bias", "by chance", "correlation", "signal"):
        table.add_column(heading, justify="right")
    for factor, own in {"1": found, **found["contact_stiffness"]}.items():
        gradient = own["gradients"][_SIMULATOR]
        values = [gradient[name][-1] for name in ("variance", "bias", "noise", "correlation")]
        table.add_row(factor, *(f"{v:.3g}" for v in (*values, gradient["signal"][-1])))
    return table


def _slices(
    config: LandscapeConfig,
    worlds: Worlds,
    space: PolicySpace,
    lines: Mapping[str, list[Tensor]],
    noise: Tensor,
) -> dict[str, Any]:
    """Returns of the most likely actions along each line, where they can be had."""
    seed = stream_seed(config.seed, "states")
    distances = torch.linspace(-config.radius, config.radius, config.points).tolist()
    found: dict[str, Any] = {"distances": distances, "along": {}}
    for name, direction in lines.items():
        returns = {
            where: slice_along(world, space, direction, distances, noise, seed)
            for where, world in worlds.all(config.samples).items()
        }
        rugged = {where: ruggedness(values) for where, values in returns.items()}
        found["along"][name] = {"returns": returns, "ruggedness": rugged}
    return found
