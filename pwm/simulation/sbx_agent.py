"""SBX's SAC, or TQC: Stable-Baselines3's agents in JAX, whose updates are one compiled loop."""

from __future__ import annotations

import os
from typing import Any

# Read when JAX starts: a worker has one thread, and JAX would take a pool of all cores.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import sbx
import torch

from pwm.simulation.sb3_agent import Sb3Agent

_POLICY_STATES = ("actor_state", "qf_state", "qf1_state", "qf2_state")  # SAC's, and TQC's pair
_ENTROPY_STATE = "ent_coef_state"


class SbxAgent(Sb3Agent):
    """An `Sb3Agent` in JAX; arguments and meaning are the same."""

    @staticmethod
    def algorithm(behaviour: str) -> type:
        """The library's class of a behaviour in `pwm.simulation.sac_config.LEARNERS`."""
        return {"sac": sbx.SAC, "tqc": sbx.TQC}[behaviour]

    def seed(self, seed: int) -> None:
        """Seeds all that the agent draws from: NumPy for its replay, and its two JAX keys."""
        super().seed(seed)
        updates, actions = jax.random.split(jax.random.PRNGKey(seed))
        self.model.key, self.model.policy.key = updates, actions

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that learning changes, but for the replay."""
        return {
            group: {
                jax.tree_util.keystr(path): torch.from_numpy(np.array(leaf))
                for path, leaf in jax.tree_util.tree_leaves_with_path(state)
            }
            for group, state in self._states().items()
        }

    def load(self, tensors: dict[str, dict[str, torch.Tensor]]) -> None:
        """Restores what `tensors` gave."""
        for group, state in self._states().items():
            leaves, structure = jax.tree_util.tree_flatten_with_path(state)
            saved = [tensors[group][jax.tree_util.keystr(path)].numpy() for path, _ in leaves]
            loaded = [jax.numpy.asarray(value) for value in saved]
            setattr(self._owner(group), group, jax.tree_util.tree_unflatten(structure, loaded))

    def _states(self) -> dict[str, Any]:
        of_policy = [name for name in _POLICY_STATES if hasattr(self.model.policy, name)]
        return {name: getattr(self._owner(name), name) for name in (*of_policy, _ENTROPY_STATE)}

    def _owner(self, state: str) -> Any:
        return self.model if state == _ENTROPY_STATE else self.model.policy
