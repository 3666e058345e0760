"""The C kernels of :mod:`pwm.runtime.kernels.normed_activation`, built once a machine."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("normed_activation.c")
_FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
          "-shared", "-fPIC"]  # fmt: skip
_FASTER = [["-march=native", "-fopenmp"], ["-march=native"], []]  # what not every compiler has
_CHUNKS = 16  # of rows, whatever the number of threads: sums come out the same
_SMALL = 1 << 15  # entries below which a second thread costs more than it does


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("groups", "n", "each", "width", "simplex", "parts")),
        ("epsilon", ctypes.c_float),
        ("chunks", ctypes.c_int64),
        ("threads", ctypes.c_int),
    ]


def cache_directory() -> Path:
    """Where what is built is kept: ``PWM_CACHE``, or ``pwm`` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PWM_CACHE") or Path(base) / "pwm")


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, built by the machine's C compiler where they have not been.

    None, with one warning that says why, where there is no compiler or it fails.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        _warn("there is no C compiler")
        return None
    try:
        return ctypes.CDLL(str(_built(shlex.split(compiler))))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        _warn((said.strip().splitlines() or [type(error).__name__])[-1])
        return None


def _warn(reason: str) -> None:
    warnings.warn(
        f"the fast kernels could not be built, going on with torch's, which are slower: {reason}",
        stacklevel=3,
    )


def _built(compiler: list[str]) -> Path:
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    flags = [*_FLAGS, *(flag for faster in _FASTER for flag in faster)]
    facts = [SOURCE.read_text(), version, *flags, *compiler, _processor(), torch.__version__]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:20]
    target = cache_directory() / f"normed_activation-{name}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            made = Path(directory) / "made.so"
            _compile(compiler, made)
            os.replace(made, target)
    return target


def _compile(compiler: list[str], out: Path) -> None:
    for faster in _FASTER:
        words = [*compiler, *_FLAGS, *faster, str(SOURCE), "-o", str(out), "-lm"]
        result = subprocess.run(words, capture_output=True, text=True, timeout=120)
        if result.returncode == 0:
            return
    result.check_returncode()


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _shape(x: Tensor, linear_bias: Tensor | None, simplex: int, epsilon: float) -> _Shape:
    threads = torch.get_num_threads() if x.numel() > _SMALL else 1
    parts = 1 if linear_bias is None or linear_bias.dim() == 2 else linear_bias.shape[1]
    return _Shape(*x.shape, simplex, parts, epsilon, _CHUNKS, threads)


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def forward(
    x: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    simplex: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(G, n, E, width) float32 to (G E, n, width), and the rows' means and inverse deviations."""
    kernels = library()
    assert kernels is not None
    groups, n, each, width = x.shape
    out = x.new_empty(groups * each, n, width)
    mean, rstd = x.new_empty(groups, n, each), x.new_empty(groups, n, each)
    given = (x, linear_bias, weight, bias, out, mean, rstd)
    kernels.normed_forward(_shape(x, linear_bias, simplex, epsilon), *map(_pointer, given))
    return out, mean, rstd


def backward(
    d_out: Tensor,
    x: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    moments: tuple[Tensor, Tensor],
    simplex: int,
    epsilon: float,
    parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, and if asked for (3, G E, width): of weight, bias and linear bias."""
    kernels = library()
    assert kernels is not None
    dx = torch.empty_like(x)
    partial = x.new_zeros(_CHUNKS, 3, len(weight), x.shape[-1]) if parameters else None
    given = (d_out, x, linear_bias, weight, bias, out, *moments, dx, partial)
    kernels.normed_backward(_shape(x, linear_bias, simplex, epsilon), *map(_pointer, given))
    return dx, None if partial is None else partial.sum(0)
