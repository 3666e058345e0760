"""Behavior cloning of offline data: the baseline that an extracted policy must beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pwm.core.layout import MANIFEST_NAME
from pwm.core.progress import progress_bar
from pwm.core.suites import Suite, Task
from pwm.core.validation import require_at_least, require_positive
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore
from pwm.models.actor_critic import ActorCriticSize, Actors, action_masks, require_widths
from pwm.models.policy import Policy
from pwm.pretraining.normalization import observation_moments
from pwm.runtime.checkpoint import is_checkpoint, read_meta
from pwm.runtime.kernels.normed_activation import fast_kernels


@dataclass
class CloningConfig:
    """Settings of the behavior cloning baselines.

    Attributes:
        updates: gradient steps, all tasks at once.
        batch_size: rows per task and update.
        pool: rows per task, drawn once from its episodes.
        lr: of Adam, with cosine decay to zero.
        hidden: layer widths of the policy, which reads normalized observations.
    """

    updates: int = 2000
    batch_size: int = 256
    pool: int = 65_536
    lr: float = 1e-3
    hidden: list[int] = field(default_factory=lambda: [256, 256])

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "updates", "batch_size", "pool")
        require_positive(self, "lr")
        require_widths(self, "hidden")


def clone(
    store: EpisodeStore, tasks: Sequence[Task], best: float, config: CloningConfig, seed: int
) -> dict[str, Policy]:
    """Clone each task's data by regression of the actions, all tasks in one stack of networks.

    Args:
        store: the data.
        tasks: of the store.
        best: the share of a task's episodes to clone, the best
            (:func:`pwm.data.ranking.best_first`); 1 for all.
        config: see :class:`CloningConfig`.
        seed: of the rows drawn and the networks' first weights.

    Returns:
        A policy per task name, on the CPU.
    """
    suite = Suite("cloned", tuple(tasks))
    size = ActorCriticSize(actor=list(config.hidden), critic=[])
    pools = [
        StatePool.draw(store, task.name, config.pool, seed, suite=suite, best=best)
        for task in tasks
    ]
    mean, scale = (torch.as_tensor(m) for m in observation_moments(store, suite))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actors = Actors(suite.obs_dim, action_masks(list(tasks), suite.action_dim), size)
        _fit(actors, pools, mean, scale, config, f"clone {best:.0%}")
    return {
        task.name: Policy.from_observation_actor(task, mean[k], scale[k], actors, k, size)
        for k, task in enumerate(tasks)
    }


def saved_clones(
    directory: Path,
    store: EpisodeStore,
    tasks: Sequence[Task],
    best: float,
    config: CloningConfig,
    seed: int,
) -> dict[str, Path]:
    """What :func:`clone` gives, saved; nothing is cloned where the same is already there.

    Args:
        directory: gets a policy per task.
        store: as for :func:`clone`, and so are the rest.
        tasks: of the store.
        best: the share of a task's episodes.
        config: how.
        seed: of the clones.

    Returns:
        What :func:`pwm.load_policy` opens, by task name.
    """
    paths = {task.name: directory / task.name for task in tasks}
    made_by = {
        "data_sha256": hashlib.sha256((store.path / MANIFEST_NAME).read_bytes()).hexdigest(),
        "tasks": list(paths),
        "best": best,
        "cloning": asdict(config),
        "seed": seed,
    }
    if not all(_made_by(path) == made_by for path in paths.values()):
        for name, policy in clone(store, tasks, best, config, seed).items():
            policy.save(paths[name], made_by)
    return paths


def _made_by(path: Path) -> object:
    return read_meta(path, "policy")["made_by"] if is_checkpoint(path) else None


def _fit(
    actors: Actors,
    pools: Sequence[StatePool],
    mean: Tensor,
    scale: Tensor,
    config: CloningConfig,
    label: str,
) -> None:
    optimizer = torch.optim.Adam(actors.parameters(), lr=config.lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.updates)
    mean, scale = mean.unsqueeze(1), scale.unsqueeze(1)
    with progress_bar() as progress:
        bar = progress.add_task(label, total=config.updates, note="")
        for _ in range(config.updates):
            rows = [torch.randint(len(pool.obs), (config.batch_size,)) for pool in pools]
            obs = torch.stack([pool.obs[r] for pool, r in zip(pools, rows, strict=True)])
            action = torch.stack([pool.action[r] for pool, r in zip(pools, rows, strict=True)])
            with fast_kernels():
                error = actors((obs - mean) / scale) - action
            loss = error.square().sum(-1).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(bar)
