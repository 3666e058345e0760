"""Small genuine inputs for every command, made by the commands themselves in some seconds."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pwm.cli.main import main
from pwm.core.suites import Task, get_suite
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import Results, score_task

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("reacher-easy", "pendulum-swingup")
STEPS = 30

OWN_TASK = """name: my-pendulum
env_id: Pendulum-v1
obs_dim: 3
action_dim: 1
episode_length: 200
score: {min: -1500, max: 0}
"""


def make_samples(directory: Path) -> dict[str, Path]:
    """Make a store, a world model and policies of two tasks, and a task file.

    Returns:
        Paths by name: data, model, policies, task (YAML) and file (nothing of the kind).
    """
    found = {name: directory / name for name in ("data", "model", "policies")}
    found |= {"task": directory / "own_task.yaml", "file": directory / "notes.txt"}
    make_store(found["data"])
    found["task"].write_text(OWN_TASK)
    found["file"].write_text("nothing of interest\n")
    tiny = "device=cpu batch_size=4 save_every=2 diagnose_every=1000 log_every=1 steps=4 warmup=1"
    run(
        f"pretrain data={found['data']} out={found['model']} {tiny} horizon.lengths=[2] model=tiny "
        "model.encoder_dim=16 model.mlp_dim=16 model.latent_dim=16 model.num_bins=21"
    )
    run(
        f"extract data={found['data']} checkpoint={found['model']} out={found['policies']} "
        "device=cpu pool=32 log_every=1 learner.iterations=2 learner.batch_size=4 "
        "learner.horizon=2 learner.networks.actor=[8] learner.networks.critic=[8] "
        "learner.networks.critics=2 learner.critic.iterations=1 learner.critic.batches=2"
    )
    return found


def make_store(path: Path, episodes: int = 24) -> None:
    """A store of random episodes of TASKS."""
    with EpisodeStore.create(path, get_suite(TASKS)) as store:
        store.add_source("random", {})
        for task in store.suite:
            store.append(task.name, [random_episode(task, [i]) for i in range(episodes)], "random")


def make_results(path: Path) -> None:
    """A directory with made-up results of TASKS."""
    suite, returns = get_suite(TASKS), np.arange(4.0)
    scores = {task.name: score_task(task, returns) for task in suite}
    found = Results.build(suite, scores, {"random": scores}, episodes=4, seeds=range(4))
    path.mkdir()
    found.save(path / "results.json")


def random_episode(task: Task, seed: list[int], steps: int = STEPS) -> Episode:
    """An episode of noise, that follows from the seed."""
    rng = np.random.default_rng([*seed, task.obs_dim])
    none = np.zeros(steps, bool)
    return Episode(
        rng.standard_normal((steps + 1, task.obs_dim)).astype(np.float32),
        rng.uniform(-1, 1, (steps, task.action_dim)).astype(np.float32),
        rng.random(steps).astype(np.float32),
        none,
        none,
        "random",
        seed[-1],
    )


def run(line: str) -> None:
    """Run a command quietly.

    Raises:
        RuntimeError: with what it said, if it fails.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(line.split())
    if code:
        raise RuntimeError(f"pwm {line}\n{said.getvalue()}")
