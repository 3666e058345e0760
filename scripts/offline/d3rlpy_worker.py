"""Train a policy with d3rlpy, in a Python environment of its own that has no pwm.

``python d3rlpy_worker.py JOB.json``; the job names data of :func:`offline.data.transitions` in an
.npz, ``out``, ``method``, ``seed``, ``updates``, ``points`` and ``settings``. ``out`` gets
``policy_<updates>.npz`` after each of so many parts of the training, as
:mod:`offline.network_policy` reads them, and at the end ``done.json`` with the seconds of learning.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import IQLConfig, ReBRACConfig, TD3PlusBCConfig
from d3rlpy.dataset import TransitionMiniBatch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory, CosineAnnealingLRFactory

CONFIGS = {"td3bc": TD3PlusBCConfig, "iql": IQLConfig, "rebrac": ReBRACConfig}
_OWN = ("updates", "widths", "layer_norm", "cosine", "return_range")
_CHECKED = 64  # observations on which a saved policy must act as the learner's


def make(method: str, settings: dict[str, Any], updates: int) -> Any:
    """The learner; ``settings`` are its config's, but for `_OWN`."""
    widths = list(settings.get("widths", [256, 256]))
    given = {name: value for name, value in settings.items() if name not in _OWN}
    if settings.get("cosine"):
        schedule = CosineAnnealingLRFactory(T_max=updates)
        given["actor_optim_factory"] = AdamFactory(lr_scheduler_factory=schedule)
    critic = VectorEncoderFactory(widths, use_layer_norm=bool(settings.get("layer_norm")))
    return CONFIGS[method](
        actor_encoder_factory=VectorEncoderFactory(widths), critic_encoder_factory=critic, **given
    ).create(device=False)


def normalized(data: dict[str, np.ndarray], settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """The data with observations of mean 0 and deviation 1, and rewards scaled if that is asked."""
    mean, scale = data["obs"].mean(0), data["obs"].std(0) + 1e-3
    made = data | {name: (data[name] - mean) / scale for name in ("obs", "next_obs")}
    if settings.get("return_range"):
        factor = settings["return_range"] / max(float(data["return_range"]), 1e-3)
        made["reward"] = data["reward"] * np.float32(factor)
    return made | {"mean": mean, "scale": scale}


def batch_of(data: dict[str, np.ndarray], rows: np.ndarray) -> TransitionMiniBatch:
    """The transitions of some rows."""
    return TransitionMiniBatch(
        observations=data["obs"][rows],
        actions=data["action"][rows],
        rewards=data["reward"][rows, None],
        next_observations=data["next_obs"][rows],
        next_actions=data["next_action"][rows],
        terminals=data["terminal"][rows, None],
        intervals=np.ones((len(rows), 1), np.float32),
        transitions=[],
    )


def save(learner: Any, data: dict[str, np.ndarray], path: Path) -> None:
    """Write the policy's layers, after a check that they alone give the learner's actions."""
    modules = learner.impl.modules.policy.named_modules()
    layers = [m for n, m in modules if isinstance(m, torch.nn.Linear) and "logstd" not in n]
    arrays = {"mean": data["mean"], "scale": data["scale"]}
    hidden = obs = data["obs"][:_CHECKED]
    for i, layer in enumerate(layers):
        weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
        arrays |= {f"weight_{i}": weight, f"bias_{i}": bias}
        hidden = hidden @ weight.T + bias
        hidden = np.tanh(hidden) if i == len(layers) - 1 else np.maximum(hidden, 0)
    np.testing.assert_allclose(hidden, learner.predict(obs), atol=1e-4)
    np.savez(path, **arrays)


def main(job: dict[str, Any]) -> None:
    """Do a job."""
    settings, updates, out = job["settings"], int(job["updates"]), Path(job["out"])
    torch.set_num_threads(1)
    d3rlpy.seed(job["seed"])
    rng = np.random.default_rng(job["seed"])
    with np.load(job["data"]) as file:
        data = normalized(dict(file), settings)
    learner = make(job["method"], settings, updates)
    learner.create_impl(data["obs"].shape[1:], data["action"].shape[1])
    began, seconds = time.perf_counter(), 0.0
    ends = {round(updates * (i + 1) / job["points"]) for i in range(job["points"])}
    size = learner.config.batch_size
    for update in range(1, updates + 1):
        learner.update(batch_of(data, rng.integers(len(data["reward"]), size=size)))
        if update in ends:
            seconds = time.perf_counter() - began
            save(learner, data, out / f"policy_{update}.npz")
    (out / "done.json").write_text(json.dumps({"seconds": seconds, "d3rlpy": d3rlpy.__version__}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
