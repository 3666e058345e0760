"""Whether the simulators step and frames can be drawn, tried in processes of their own.

A broken driver can end the process that tries it, or keep it waiting.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec

from pwm.doctor.section import Section

PATIENCE = 8.0  # seconds, after which an answer is no longer waited for

_STEP = """
from pwm.envs import make_env
env = make_env("{task}", seed=0)
env.reset()
env.step(env.action_space.sample())
print("works")
"""
_DRAW = """
import time
import mujoco
model = mujoco.MjModel.from_xml_string('''
<mujoco><worldbody><light pos="0 0 3"/><geom size=".3" rgba="1 0 0 1"/></worldbody></mujoco>
''')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 240, 320)
for _ in range(2):
    begun = time.perf_counter()
    renderer.update_scene(data)
    frame = renderer.render()
    spent = time.perf_counter() - begun
assert frame[..., 0].max() > frame[..., 1].max(), "the frame shows nothing of the scene"
by = ""
try:
    from OpenGL import GL
    by = f" by {GL.glGetString(GL.GL_RENDERER).decode()}"
except Exception:
    pass
print(f"works, {1000 * spent:.0f} ms per frame{by}")
renderer.close()
"""
_SIMULATORS = {"dm_control": "pendulum-swingup", "metaworld": "mw-reach"}
_NO_DISPLAY = "no display"


class Trials:
    """Programs that run side by side while other facts are looked for.

    Args:
        programs: Python code and further environment variables by name.
    """

    def __init__(self, programs: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
        self._deadline = time.monotonic() + PATIENCE
        self._running = {
            name: subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, (code, variables) in programs.items()
        }

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.communicate()

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def result(self, name: str) -> tuple[bool, str]:
        """Whether a program did what it should, and its last line or why it did not."""
        process = self._running[name]
        try:
            out, err = process.communicate(timeout=max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False, f"no answer within {PATIENCE:.0f} s"
        if out.strip():  # some drivers fail after all is done, when the process ends
            return True, out.strip().splitlines()[-1]
        if process.returncode < 0:
            return False, f"ended by signal {-process.returncode}"
        said = [line for line in err.strip().splitlines() if line[:1].strip()]
        return False, _reason(said) or f"ended with exit code {process.returncode}"


def begin_trials() -> Trials:
    """Start all that is tried of the simulators, of those that are installed."""
    programs: dict[str, tuple[str, Mapping[str, str]]] = {
        name: (_STEP.format(task=task), {})
        for name, task in _SIMULATORS.items()
        if find_spec(name) is not None
    }
    if find_spec("mujoco") is not None:
        for backend in _backends():
            programs[backend] = (_DRAW, {"MUJOCO_GL": backend})
    return Trials(programs)


def simulators(trials: Trials) -> Section:
    """Whether a task of each simulator resets and steps."""
    section = Section()
    for name in _SIMULATORS:
        section.ask(name, partial(_simulator, section, trials, name))
    return section


def rendering(trials: Trials) -> Section:
    """Which OpenGL backends draw a frame."""
    section = Section()
    section.ask("MUJOCO_GL", lambda: os.environ.get("MUJOCO_GL", "not set"))
    found = {name: trials.result(name) for name in _backends() if name in trials}
    if not found:
        section.facts["frames"] = "not tried, mujoco is not installed"
        return section
    for name, (_, said) in found.items():
        section.facts[name] = said
    section.ask("pwm draws by", lambda: _chosen({name: ok for name, (ok, _) in found.items()}))
    if any("llvmpipe" in said or "softpipe" in said for _, said in found.values()):
        section.warn("frames are drawn by the CPU, not by a GPU, so videos take longer.")
    return section


def _simulator(section: Section, trials: Trials, name: str) -> str:
    if name not in trials:
        return "not installed"
    works, said = trials.result(name)
    if not works and not said.startswith("no answer"):
        section.broken.append(f"{name} is installed but does not work ({said}); install it again.")
    return said


def _backends() -> tuple[str, ...]:
    return ("cgl", "glfw") if sys.platform == "darwin" else ("egl", "osmesa", "glfw")


def _chosen(works: Mapping[str, bool]) -> str:
    from pwm.envs import render_candidates

    candidates = render_candidates()
    chosen = next((name for name in candidates if works.get(name)), None)
    return chosen or f"nothing, {' and '.join(candidates)} do not work; videos need one of them"


def _reason(said: list[str]) -> str:
    """The line that tells most of what a program wrote as it failed."""
    for line in said:
        if "DISPLAY" in line:
            return _NO_DISPLAY
        if line.startswith("AttributeError: 'NoneType'"):  # of PyOpenGL
            return "its library is not installed"
    errors = [line for line in said if "Error: " in line]
    return (errors or said or [""])[0][:150]
