"""Off-screen rendering without a display: EGL where it works, else OSMesa.

The simulators fix their OpenGL backend from ``MUJOCO_GL`` when they are imported. Here they are
imported with rendering disabled, and frames are drawn by MuJoCo's own renderer with a backend that
is chosen when a frame is first asked for, so the order of imports does not matter.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import subprocess
import sys
import weakref
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.processes import environment_variables

if TYPE_CHECKING:
    import mujoco

HEIGHT = 240
WIDTH = 320

_BACKENDS = ("cgl",) if sys.platform == "darwin" else ("egl", "osmesa")

_DEVICE = "MUJOCO_EGL_DEVICE_ID"  # of several GPUs, the one that MuJoCo renders on

_PROBE = """
from mujoco import MjModel, MjrContext
from mujoco.{backend} import GLContext
context = GLContext(64, 64)
context.make_current()
MjrContext(MjModel.from_xml_string("<mujoco/>"), 150)
"""


def simulator_import() -> AbstractContextManager[None]:
    """A context in which a simulator is imported without its own OpenGL set-up.

    Without a display that set-up is slow, prints warnings and may fail; most environments never
    render, and those that do have ``Renderer``.
    """
    return environment_variables(MUJOCO_GL="disabled")


def render_candidates() -> tuple[str, ...]:
    """The OpenGL backends that :func:`render_backend` tries, in order."""
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    return (wanted,) if wanted in _BACKENDS else _BACKENDS


@functools.cache
def render_backend() -> str:
    """The OpenGL backend that draws frames in this process; raises PwmError if none works.

    ``MUJOCO_GL=egl`` or ``MUJOCO_GL=osmesa`` in the environment decides; otherwise EGL is tried,
    then OSMesa (on macOS the system's CGL). A backend counts as working when a separate process
    has made a context with it, since a broken driver can end the process that tries it.
    """
    candidates = render_candidates()
    for backend in candidates:
        if _works(backend):
            return backend
    device = os.environ.get(_DEVICE)
    if device is not None and "egl" in candidates and _works("egl", without=_DEVICE):
        raise PwmError(
            f"{_DEVICE}={device} is set, and no such device can render here, though another "
            "can; set it to one that is there, or unset it."
        )
    raise PwmError(
        f"rendering was asked for but no OpenGL backend works (tried {', '.join(candidates)}); "
        "on Debian or Ubuntu install EGL with `apt-get install libegl1 libgl1-mesa-dri` or "
        "OSMesa with `apt-get install libosmesa6`, or go without rendering."
    )


def _works(backend: str, without: str = "") -> bool:
    """Whether a process makes a context, in this environment or one without a variable."""
    nowhere = subprocess.DEVNULL
    variables = {name: value for name, value in os.environ.items() if name != without}
    command = [sys.executable, "-c", _PROBE.format(backend=backend)]
    variables["MUJOCO_GL"] = "disabled"
    return (
        subprocess.call(command, env=variables, stdin=nowhere, stdout=nowhere, stderr=nowhere) == 0
    )


class Renderer:
    """Draws frames of one MuJoCo model into memory."""

    def __init__(self, model: mujoco.MjModel) -> None:
        with simulator_import():
            import mujoco
            from mujoco import gl_context

        # What MUJOCO_GL does at import time, done when the backend is known.
        gl_context.GLContext = importlib.import_module(f"mujoco.{render_backend()}").GLContext
        self._renderer: Any = mujoco.Renderer(model, HEIGHT, WIDTH)
        _open.add(self)
        # Moved behind whatever else was registered meanwhile: the contexts must be freed before
        # EGL itself is shut down, and exit functions run last in, first out.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    def frame(self, data: mujoco.MjData, camera: int | mujoco.MjvCamera) -> np.ndarray:
        """One frame, ``(240, 320, 3)`` uint8."""
        self._renderer.update_scene(data, camera)
        frame: np.ndarray = self._renderer.render()
        return frame

    def close(self) -> None:
        """Frees the OpenGL context; may be called more than once."""
        self._renderer.close()


_open: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
