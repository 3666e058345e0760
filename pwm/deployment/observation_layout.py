"""Which numbers of an observation are what, as the simulators name them."""

from __future__ import annotations

from typing import Any

from pwm.core.suites import Task

_DMCONTROL = {
    "walker": "orientations 14, height 1, velocity 9",
    "cheetah": "position 8, velocity 9",
    "reacher": "position 2, to_target 2, velocity 2",
    "reacher-three": "position 3, to_target 2, velocity 3",
    "acrobot": "orientations 4, velocity 2",
    "pendulum": "orientation 2, velocity 1",
    "cartpole": "position 3, velocity 2",
    "cup": "position 4, velocity 4",
    "finger": "position 4, velocity 3, touch 2",
    "finger-turn": "position 4, velocity 3, touch 2, target_position 2, dist_to_target 1",
    "fish": "joint_angles 7, upright 1, target 3, velocity 13",
    "hopper": "position 6, velocity 7, touch 2",
}
_OBJECTS = (
    "hand_position 3, gripper_opening 1, object_1_position 3, object_1_quaternion 4, "
    "object_2_position 3, object_2_quaternion 4"
)
_METAWORLD = f"{_OBJECTS}, previous {_OBJECTS.replace(', ', ', previous ')}, goal_position 3"


def observation_layout(task: Task) -> list[dict[str, Any]]:
    """The parts of an observation in their order: a name, the first entry and the number of them.

    That of a user-defined task is one part, which ``gymnasium.spaces.flatten`` gives.
    """
    parts, first = [], 0
    for words in _described(task).split(", "):
        name, size = words.replace("previous ", "previous_").split(" ")
        parts.append({"name": name, "first": first, "size": int(size)})
        first += int(size)
    return parts


def _described(task: Task) -> str:
    if task.domain == "metaworld":
        return _METAWORLD
    known = [body for body in _DMCONTROL if task.name.startswith(f"{body}-")]
    if task.domain == "dmcontrol" and known:
        return _DMCONTROL[max(known, key=len)]
    return f"observation {task.obs_dim}"
