"""The planar reacher with an arm of three links."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dm_control.rl import control
from dm_control.suite import common, reacher

from .base import loader

_XML = Path(__file__).with_name("reacher_three.xml")


def _three_links() -> control.Environment:
    physics = reacher.Physics.from_xml_string(_XML.read_text(encoding="utf-8"), common.ASSETS)
    return control.Environment(physics, reacher.Reacher(target_size=0.05))


TASKS = {
    "reacher-three-easy": loader(_three_links, partial(reacher.Reacher, 0.05)),
    "reacher-three-hard": loader(_three_links, partial(reacher.Reacher, 0.015)),
}
