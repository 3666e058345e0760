"""Videos of what a run of ``pwm compare`` learned, drawn without a window or OpenGL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.evaluation.videos import require_writer, side_by_side, write_video
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.drawing import Camera, draw
from pwm.locomotion.learner import FAIR_EPISODES
from pwm.models.policy import load_policy
from pwm.runtime.checkpoint import is_checkpoint

FILMED = ("pwm", "shac")  # whose runs have a policy
VIDEO = "video.mp4"
_PER_SECOND = 25  # frames, as write_video has
_STRIP = 8
_ROOM = 1.6  # heights of the robot that a picture is high


@runtime_checkable
class Drawable(BatchedSimulation, Protocol):
    """A simulation whose bodies are capsules."""

    def capsules(self) -> tuple[Tensor, Tensor]:
        """Ends (N, capsules, 2, 3) in the world, in m, and radii (capsules,)."""
        ...


@dataclass(frozen=True)
class Scenes:
    """Where a robot's bodies were during an episode.

    Attributes:
        ends: (frames, capsules, 2, 3) m, at 25 frames a second.
        radii: (capsules,) m.
    """

    ends: np.ndarray
    radii: np.ndarray

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures (height, width, 3) uint8; the camera goes along with the robot."""
        first = self.ends[0]
        size = np.ptp(first.reshape(-1, 3), axis=0).max() + 2 * self.radii.max()
        above = first[..., 2].max() / 2
        for ends in self.ends:
            x, y, z = ends.mean((0, 1))
            yield draw(ends, self.radii, Camera(np.array([x, y, max(z, above)]), _ROOM * size))

    def some(self, count: int) -> Scenes:
        """A few of them, evenly spaced from the first to the last."""
        chosen = np.linspace(0, len(self.ends) - 1, count).round().astype(int)
        return Scenes(self.ends[chosen], self.radii)


def require_drawable(simulation: BatchedSimulation) -> Drawable:
    """The simulation; raises PwmError if it has no bodies to draw."""
    if not isinstance(simulation, Drawable):
        raise PwmError(
            f"{simulation.name} has no bodies that could be drawn; "
            "videos are of the robots: hopper, ant, anymal, humanoid and humanoid_muscles."
        )
    return simulation


@torch.no_grad()
def episode(simulation: Drawable, act: Callable[[Tensor], Tensor]) -> Scenes:
    """An episode in the first environment, until it ends."""
    observation = simulation.reset(FAIR_EPISODES)
    ends, radii = simulation.capsules()
    found, step_frames = [ends[0]], simulation.step_seconds * _PER_SECOND
    for count in range(1, simulation.episode_length + 1):
        step = simulation.step(act(observation))
        if bool(step.terminated[0] | step.truncated[0]):  # what is there now is the next episode
            break
        if int(count * step_frames) > int((count - 1) * step_frames):
            found.append(simulation.capsules()[0][0])
        observation = step.observation
    return Scenes(torch.stack(found).cpu().numpy(), radii.cpu().numpy())


def film(run: Path, device: str = "cpu") -> Path:
    """Write ``video.mp4`` and ``video.png``, a strip of 8 frames, of an episode of a run's policy.

    Args:
        run: a run's directory, such as ``runs/x/ant/shac/seed0``; it gets both files.
        device: where the simulation and the policy run.

    Returns:
        The video's path.

    Raises:
        PwmError: for a run without a policy, a task without bodies, or what a video needs and is
            not installed.
    """
    require_writer()
    if not is_checkpoint(run / "policy"):
        raise PwmError(
            f"{run} has no policy to make a video of; finished runs of pwm and shac have one, "
            "such as OUT/ant/shac/seed0."
        )
    policy = load_policy(run / "policy", device)
    simulation = make_simulation(policy.task.name, num_envs=1, device=device)
    try:
        scenes = episode(require_drawable(simulation), policy)
    finally:
        simulation.close()
    strip = np.stack(list(scenes.some(_STRIP).frames()))
    write_atomically(run / "video.png", side_by_side(strip))
    write_video(run / VIDEO, scenes.frames())
    return run / VIDEO
