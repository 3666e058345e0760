from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faulty_env import Harm
from forked import forked_command
from short_tasks import short_tasks
from stores import digests

from envs import make_env
from pwm.core.errors import PwmError
from pwm.core.signals import Interrupted
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.simulation.collect import _describe, _recipe, collect
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.rollout import episode_seed
from pwm.simulation.simulator_mpc import SimulatorMPCConfig

TASKS = "pendulum-swingup,mw-drawer-close"
EPISODES = 3  # a task


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """From one worker; not to be written into."""
    out = tmp_path_factory.mktemp("collected") / "data"
    return collect(CollectConfig(out=str(out), suite=TASKS, episodes=EPISODES, seed=5, workers=1))


@pytest.mark.spawned  # as a user's workers are
def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(collected, tmp_path):
    two = collect(CollectConfig(str(tmp_path / "two"), TASKS, episodes=EPISODES, seed=5, workers=2))
    assert digests(two) == digests(collected)
    names = set(digests(two))
    assert {"manifest.json", "pendulum-swingup/rows.bin", "pendulum-swingup/episodes.bin"} <= names


def test_what_was_collected_is_whole_and_reproduces_from_its_seed(collected):
    store = EpisodeStore.open(collected)
    assert list(verify(store)) == []
    for task in store.suite:
        table = store.episodes(task.name)
        assert len(table) == EPISODES
        assert (table["length"] == task.episode_length + 1).all()
        assert len(set(table["seed"])) == EPISODES
        episode = store.episode(task.name, EPISODES - 1)
        assert episode.seed == episode_seed(5, task.name, EPISODES - 1)
        env = make_env(task.name)
        obs, _ = env.reset(seed=episode.seed)
        np.testing.assert_array_equal(obs, episode.obs[0])
        for t, action in enumerate(episode.action):
            obs, reward, _, _, details = env.step(action)
            np.testing.assert_array_equal(obs, episode.obs[t + 1])
            assert np.float32(reward) == episode.reward[t]
            assert (details["success"] > 0) == episode.success[t]
    first = {tuple(store.episode("pendulum-swingup", i).action[0]) for i in range(EPISODES)}
    assert len(first) == EPISODES


def test_more_episodes_go_on_where_the_store_ends(collected, tmp_path):
    out = str(tmp_path / "data")
    collect(CollectConfig(out, TASKS, episodes={"pendulum-swingup": 2}, seed=5, workers=1))
    store = EpisodeStore.open(out)
    assert [store.count(name) for name in store.suite.names] == [2, 0]
    collect(CollectConfig(out, TASKS, episodes=EPISODES, seed=5, workers=1))
    fresh, grown = digests(collected), digests(Path(out))
    assert {name: fresh[name] for name in fresh if name != "manifest.json"} == {
        name: grown[name] for name in grown if name != "manifest.json"
    }
    before = digests(Path(out))
    collect(CollectConfig(out, TASKS, episodes=EPISODES, seed=5, workers=1))
    assert digests(Path(out)) == before, "nothing was left to do"


def test_resume_never_adds_to_nothing(collected):
    before = digests(collected)
    with pytest.raises(PwmError, match="of an earlier run and resume=never"):
        collect(CollectConfig(str(collected), TASKS, episodes=9, seed=5, resume="never"))
    with pytest.raises(PwmError, match="unknown resume"):
        collect(CollectConfig(str(collected), TASKS, episodes=9, seed=5, resume="perhaps"))
    assert digests(collected) == before


def test_another_seed_or_behaviour_adds_another_source(tmp_path):
    out = str(tmp_path / "data")
    suite = "pendulum-swingup"
    collect(CollectConfig(out, suite, episodes=2, seed=0, behaviour="scripted"))
    collect(CollectConfig(out, suite, episodes=3, seed=1, behaviour="scripted"))
    collect(CollectConfig(out, suite, episodes=1, seed=0, behaviour="ou"))
    store = EpisodeStore.open(out)
    assert store.count(suite) == 6
    assert [store.count(suite, key) for key in store.sources] == [2, 3, 1]
    described = list(store.sources.values())
    assert [(d["behaviour"], d["seed"]) for d in described] == [
        ("scripted", 0),
        ("scripted", 1),
        ("ou", 0),
    ]
    assert store.behaviours == ("scripted", "ou")
    assert len(np.unique(store.episodes(suite)["seed"])) >= 5


def own_task(directory: Path, **env_kwargs: object) -> Path:
    """A task file of short episodes, whose workers need no robot simulator."""
    file = directory / "own.yaml"
    described = {
        "name": "own", "env_id": "faulty_env:Faulty-v0", "env_kwargs": env_kwargs, "obs_dim": 3,
        "action_dim": 1, "episode_length": 40, "score": {"min": -1500, "max": 0},
    }  # fmt: skip
    file.write_text(json.dumps(described))  # which is YAML too
    return file


def committed(out: Path) -> int:
    return EpisodeStore.open(out).count("own") if (out / "manifest.json").exists() else 0


def processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_for_end_of_group(group: int) -> None:
    deadline = time.monotonic() + 20
    while processes_of_group(group):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def test_interrupted_or_killed_it_keeps_whole_episodes_and_resumes(tmp_path):
    out = tmp_path / "data"
    file = own_task(tmp_path, token=str(tmp_path / "none"))
    command = ["collect", f"suite={file}", f"out={out}", "episodes=1000000", "workers=2"]
    for how, least in ((signal.SIGINT, 50), (signal.SIGKILL, 100)):
        process = forked_command(command, tmp_path / "log", group=True)
        process.wait_until(lambda least=least: committed(out) >= least)
        if how == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, how)  # as a terminal does: to the workers too
        code = process.wait()
        wait_for_end_of_group(process.pid)
        assert code == (-how if how == signal.SIGKILL else 128 + how)
        assert ("same command goes on" in process.printed) == (how != signal.SIGKILL)
        store = EpisodeStore.open(out)
        assert list(verify(store)) == []
        seeds = store.episodes("own")["seed"].tolist()
        assert seeds == [episode_seed(0, "own", i) for i in range(len(seeds))]


@pytest.mark.slow
def test_workers_that_die_and_hang_at_random_leave_the_same_bytes(collected, tmp_path, capsys):
    settings = CollectConfig(
        str(tmp_path / "data"), TASKS, episodes=EPISODES, seed=5, workers=2, worker_timeout=6.0,
        max_faults=50,
    )  # fmt: skip
    with Harm([signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL], every=0.4):
        out = collect(settings)
    assert digests(out) == digests(collected)
    assert "Workers replaced" in capsys.readouterr().err


def test_simulators_that_raise_die_hang_or_give_nan_are_run_again(tmp_path, capsys):
    def settings(name: str, cursed: int | None = None, **more) -> CollectConfig:
        task = own_task(tmp_path, token=str(tmp_path / "token"), cursed=cursed)
        return CollectConfig(str(tmp_path / name), str(task), episodes=8, workers=1, **more)

    plain = collect(settings("plain"))
    for kind in ("nan", "raise", "die", "hang"):
        (tmp_path / f"token.{kind}").touch()
    assert digests(collect(settings("faulty", worker_timeout=3.0))) == digests(plain)
    assert not list(tmp_path.glob("token.*"))
    assert "Workers replaced: 4 (1 died, 2 failed, 1 hung)" in capsys.readouterr().err
    seed = episode_seed(0, "own", 5)
    message = rf"failed at episode 5 of task 'own' \(seed {seed}\) .*not finite.*max_faults=2"
    with pytest.raises(PwmError, match=message):
        collect(settings("cursed", cursed=seed, max_faults=2))
    assert EpisodeStore.open(tmp_path / "cursed").count("own") == 5


def test_settings_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    out = str(tmp_path / "data")
    for settings, message in (
        ({"suite": "mt31"}, "mt31"),
        ({"episodes": -1}, "not a number of episodes"),
        ({"episodes": {"walker-run": 3}}, "not in suite 'quick'"),
        ({"behaviour": "expert"}, "unknown behaviour 'expert'"),
        ({"behaviour": "policy"}, "policy=DIR"),
        ({"behaviour": "policy", "policy": str(tmp_path / "no")}, "not a checkpoint"),
        ({"policy": str(tmp_path)}, "go together"),
        ({"policy_noise": -0.1}, "policy_noise=-0.1 must be a number of at least 0"),
        ({"policy_noise": [0.1, "much"]}, "or a list of such numbers"),
        ({"policy_noise": []}, "or a list of such numbers"),
        ({"policy_noise_correlation": 1.0}, "at least 0 and below 1"),
        ({"suite": "walker-run", "behaviour": "scripted"}, "no scripted controller"),
        ({"suite": "walker-run", "behaviour": "held"}, "no script that could hold still"),
        ({"mpc": SimulatorMPCConfig(samples=1)}, "mpc.samples=1 must be at least 2"),
        ({"mpc": SimulatorMPCConfig(elites=33)}, "mpc.elites=33 must be at most 32"),
        ({"mpc": SimulatorMPCConfig(sigmas=[0.0])}, "must be numbers above 0"),
        ({"seed": -1}, "must be"),
        ({"workers": -2}, "must be"),
        ({"worker_timeout": 0}, "worker_timeout=0"),
        ({"max_faults": 0}, "max_faults=0"),
    ):
        with pytest.raises(PwmError, match=message):
            collect(CollectConfig(out, **settings))
    assert not (tmp_path / "data").exists()


def test_settings_of_the_planner_act_and_are_told_where_they_are_not_the_defaults(tmp_path):
    def planned(**mpc: int) -> EpisodeStore:
        config = CollectConfig(
            str(tmp_path / "data"), "cartpole-balance", episodes=1, workers=1, behaviour="mpc",
            mpc=SimulatorMPCConfig(samples=2, elites=1, least=2, most=2, **mpc),
        )  # fmt: skip
        return EpisodeStore.open(collect(config))

    with short_tasks(["cartpole-balance"], 60):
        planned(every=2)
        store = planned(every=1)
    first, second = (store.episode("cartpole-balance", index) for index in range(2))
    assert first.seed == second.seed
    assert not np.array_equal(first.action, second.action)
    assert [source["planner"]["every"] for source in store.sources.values()] == [2, 1]
    default = CollectConfig(str(tmp_path / "data"), "cartpole-balance", behaviour="mpc")
    assert "planner" not in _describe(default, _recipe(default), store.suite)


def test_a_store_of_another_suite_is_refused(collected):
    before = digests(collected)
    with pytest.raises(PwmError, match="do not include 'walker-run'"):
        collect(CollectConfig(str(collected), "walker-run", episodes=1))
    assert digests(collected) == before


def test_an_interrupt_before_the_first_episode_is_clean(tmp_path, monkeypatch):
    import pwm.simulation.collect as module

    class Stopped(module.StopSignals):
        def __enter__(self):
            self.requested = signal.SIGINT
            return self

    monkeypatch.setattr(module, "StopSignals", Stopped)
    with pytest.raises(Interrupted):
        collect(CollectConfig(str(tmp_path / "data"), "pendulum-swingup", episodes=2, workers=1))
    assert EpisodeStore.open(tmp_path / "data").count("pendulum-swingup") == 0


def test_what_workers_import_has_neither_torch_nor_a_simulator():
    code = "import sys, pwm.simulation.collect, pwm.core.worker_pool; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "mujoco", "dm_control", "metaworld"} & set(run.stdout.split())


def test_a_directory_as_behaviour_is_told_how_policies_act(tmp_path):
    config = CollectConfig(out="o", suite="quick", behaviour=str(tmp_path))
    with pytest.raises(PwmError, match="behaviour=policy policy="):
        config.validate()
