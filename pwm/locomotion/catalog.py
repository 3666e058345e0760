"""Locomotion environments by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from pwm.core.errors import PwmError
from pwm.core.validation import nearest
from pwm.locomotion.batched_simulation import BatchedSimulation


@dataclass(frozen=True)
class Entry:
    """An environment: where the function that makes it lives, and one line about it.

    The function takes ``num_envs``, ``seed`` and ``device`` by keyword, and ``contact_stiffness``
    where the environment has contacts, and gives a :class:`BatchedSimulation`; its module is
    imported only when it is used.
    """

    module: str
    function: str
    summary: str
    has_contacts: bool = False


_TOYS, _SIMULATION = "pwm.locomotion.toys", "pwm.locomotion.simulation"
_GYMNASIUM = "pwm.locomotion.gymnasium_robots"
_EXTRAS = {"newton": "locomotion", "warp": "locomotion", "mujoco": "sim"}

ENTRIES: dict[str, Entry] = {
    "ball_wall": Entry(_TOYS, "BallWall", "a ball is thrown over a wall, one decision (torch)"),
    "pendulum": Entry(_TOYS, "Pendulum", "swing a pendulum up, one torque (torch)"),
    "double_pendulum": Entry(_TOYS, "DoublePendulum", "lift two links, two torques (torch)"),
    "hopper": Entry(_SIMULATION, "hopper", "a planar hopper with 3 motors", True),
    "ant": Entry(_SIMULATION, "ant", "an ant with 8 motors", True),
    "anymal": Entry(_SIMULATION, "anymal", "a quadruped with 12 position servos", True),
    "humanoid": Entry(_SIMULATION, "humanoid", "a humanoid with 21 motors", True),
    "humanoid_muscles": Entry(
        _SIMULATION,
        "humanoid_muscles",
        "the humanoid with 152 muscles in place of its motors",
        True,
    ),
    "mujoco_ant": Entry(_GYMNASIUM, "ant", "Gymnasium's Ant-v5 (MuJoCo, no gradients)"),
    "mujoco_humanoid": Entry(
        _GYMNASIUM, "humanoid", "Gymnasium's Humanoid-v5 (MuJoCo, no gradients)"
    ),
}


def make_simulation(
    name: str,
    *,
    num_envs: int,
    seed: int = 0,
    device: str = "cpu",
    contact_stiffness: float = 1.0,
) -> BatchedSimulation:
    """N copies of the environment of a name, of this catalog.

    Args:
        name: of the catalog.
        num_envs: N.
        seed: of where episodes begin.
        device: where it is computed.
        contact_stiffness: of contacts, as a multiple of what the environment has.

    Raises:
        PwmError: for a name that is not in the catalog, no copies, a simulator that is not
            installed, or another stiffness of an environment without contacts.
    """
    if name not in ENTRIES:
        raise PwmError(
            f"there is no locomotion environment {name}{nearest(name, ENTRIES) or '.'} "
            f"The names are {', '.join(ENTRIES)}."
        )
    if num_envs < 1:
        raise PwmError(f"num_envs={num_envs} of {name}; give the number of its copies, 1 or more.")
    entry = ENTRIES[name]
    if contact_stiffness != 1 and not entry.has_contacts:
        raise PwmError(
            f"{name} has no contacts, so contact_stiffness={contact_stiffness:g} means nothing; "
            f"those that have are {', '.join(n for n, e in ENTRIES.items() if e.has_contacts)}."
        )
    try:
        module = import_module(entry.module)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        raise PwmError(
            f"{name} needs {error.name}, which is not installed; "
            f"pip install 'pwm-worldmodels[{extra}]'."
        ) from error
    make: Callable[..., BatchedSimulation] = getattr(module, entry.function)
    own = {"contact_stiffness": contact_stiffness} if entry.has_contacts else {}
    return make(num_envs=num_envs, seed=seed, device=device, **own)
