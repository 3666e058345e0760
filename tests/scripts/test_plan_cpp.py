"""The planner in C++, against NumPy, where there are a compiler and onnxruntime's C header."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from deployable import CHEETAH, world_model

from pwm.core.suites import get_task
from pwm.deployment.deploy import DeployConfig, deploy
from pwm.deployment.numpy_file import open_numpy
from pwm.models.world_model import KIND, model_meta
from pwm.runtime.checkpoint import save_checkpoint

HEADER = "onnxruntime_c_api.h"
PLANS, STEPS = 64, 5


def include() -> Path:
    """The folder of onnxruntime's C header: pip's package has the library, and no header."""
    places = [os.environ.get("ORT_INCLUDE"), "/usr/include/onnxruntime", "/usr/local/include"]
    for place in places:
        if place and Path(place, HEADER).is_file():
            return Path(place)
    pytest.skip(f"no {HEADER}; give the include folder of an onnxruntime release as ORT_INCLUDE")


def planner(directory: Path) -> Path:
    """The compiled planner."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    headers = include()
    folder = Path(onnxruntime.__file__).parent / "capi"
    libraries = sorted(folder.glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip(f"{folder} has no shared library to link with")
    source = Path(__file__).parents[2] / "scripts" / "reference" / "plan.cpp"
    program = directory / "plan"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-isystem", str(headers)]
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # as a release has it
        (directory / name).symlink_to(libraries[0])
    linked = ["-L", str(directory), "-lonnxruntime", f"-Wl,-rpath,{directory}", "-o", str(program)]
    subprocess.run([compiler, *flags, str(source), *linked], check=True, timeout=300)
    return program


@pytest.mark.slow
def test_the_best_plan_is_numpys(tmp_path):
    program = planner(tmp_path)
    model = world_model(CHEETAH, get_task("mw-reach"))
    save_checkpoint(tmp_path / "model", KIND, {"model": model.state_dict()}, model_meta(model))
    for to in ("onnx", "numpy"):
        given = {"checkpoint": str(tmp_path / "model"), "task": CHEETAH.name}
        written = deploy(DeployConfig(**given, to=to, out=str(tmp_path / to)))
    encode, step, reward = (open_numpy(written[0], name) for name in ("encode", "next", "reward"))
    bits = np.random.MT19937()
    bits._legacy_seeding(0)  # as std::mt19937 is seeded
    latent = np.repeat(encode(np.zeros((1, CHEETAH.obs_dim))), PLANS, 0)
    returns = np.zeros(PLANS)
    for _ in range(STEPS):
        drawn = bits.random_raw(PLANS * CHEETAH.action_dim).reshape(PLANS, -1)
        action = (drawn / 2.0**31 - 1).astype(np.float32)
        returns += reward(latent, action)[:, 0]
        latent = step(latent, action)
    words = [program, tmp_path / "onnx" / CHEETAH.name, CHEETAH.obs_dim, CHEETAH.action_dim]
    done = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
    plan, best = done.stdout.split()[1::2]
    assert np.sort(returns)[-1] - np.sort(returns)[-2] > 1e-4  # one plan is the best
    assert int(plan) == returns.argmax()
    assert float(best) == pytest.approx(returns.max(), abs=1e-5)
