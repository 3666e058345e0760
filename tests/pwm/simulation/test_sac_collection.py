"""Agents that learn while they act, and the record of all their episodes."""

from __future__ import annotations

import copy
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from stores import digests

import pwm.simulation.sac_collection
from envs import make_env
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.signals import Interrupted
from pwm.core.suites import Task, get_task
from pwm.data.episode import Episode
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.runtime.training_checkpoints import step_name
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.rollout import episode_seed, run_episode
from pwm.simulation.sac_config import AGENTS_DIRECTORY, SacConfig, Training, describe_learner
from pwm.simulation.sac_worker import AgentTrainer, RecordingEnv, agent_class
from pwm.simulation.sb3_agent import Sb3Agent

TASKS = ("swing", "balance")
DESCRIBED = """\
- {name: swing, env_id: Pendulum-v1, obs_dim: 3, action_dim: 1, episode_length: 30,
   score: {min: -1500, max: 0}}
- {name: balance, env_id: InvertedPendulum-v5, obs_dim: 4, action_dim: 1, episode_length: 30,
   score: {min: 0, max: 30}}
"""  # the first ends by time alone, the second also by falling
TINY = SacConfig(
    random_episodes=2, learning_starts=50, train_freq=5, batch_size=8, net_arch=[8],
    buffer_size=150, learning_rate=1e-2,
)  # fmt: skip
EPISODES = 11  # a whole job and a part of one; the replay, of five episodes, goes round


def settings(out: Path, **more) -> CollectConfig:
    file = out.parent / "tasks.yaml"
    file.write_text(DESCRIBED)
    given = {"suite": str(file), "episodes": EPISODES, "seed": 3, "workers": 1} | more
    return CollectConfig(str(out), behaviour="sac", sac=TINY, **given)


def result(store: Path) -> dict[str, str]:
    """The episodes, and the agents that they end with."""
    final = f"step_{EPISODES:09d}/*.safetensors"
    return digests(store, "*.bin", final)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """From one worker; not to be written into."""
    return collect(settings(tmp_path_factory.mktemp("trained") / "data"))


def test_every_episode_of_the_training_is_there_in_order(trained):
    store = EpisodeStore.open(trained)
    assert list(verify(store)) == []
    for task in TASKS:
        seeds = [episode_seed(3, task, index) for index in range(EPISODES)]
        assert store.episodes(task)["seed"].tolist() == seeds
        episodes = [store.episode(task, index) for index in range(EPISODES)]
        assert [e.behaviour for e in episodes] == ["random"] * 2 + ["sac"] * (EPISODES - 2)
        env = make_env(store.suite[task])
        for episode in (episodes[0], episodes[-1]):
            obs, _ = env.reset(seed=episode.seed)
            np.testing.assert_array_equal(obs, episode.obs[0])
            for t, action in enumerate(episode.action):
                obs, reward, *_ = env.step(action)
                np.testing.assert_array_equal(obs, episode.obs[t + 1])
                assert np.float32(reward) == episode.reward[t]
        ended = [episode.terminated.tolist() for episode in episodes]
        falls = [of[-1] for of in ended]
        assert any(falls) == (task == "balance") and not any(any(of[:-1]) for of in ended)


def test_the_manifest_says_what_came_from_where(trained):
    ((key, source),) = EpisodeStore.open(trained).sources.items()
    assert key.startswith("collect-sac-seed3-")
    assert source["library"].startswith("stable-baselines3 2.")
    assert source["settings"]["net_arch"] == [8] and source["settings"]["gamma"] is None
    assert (source["made_by"], source["behaviour"], source["seed"]) == ("pwm collect", "sac", 3)


def test_any_number_of_workers_gives_the_same_bytes(trained, tmp_path):
    two = collect(settings(tmp_path / "data", workers=2))
    assert digests(two) == digests(trained)


def test_where_all_episodes_are_there_nothing_is_left_to_do(trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "data")
    collect(settings(out))
    assert digests(out) == digests(trained)


def at_answer(monkeypatch, number: int, act: Callable[[], None]) -> None:
    """Something happens when workers have told for the n-th time that an episode is over."""
    method, calls = pwm.simulation.sac_collection._TrainingJobs.answer, []

    def answer(self, told):
        calls.append(told)
        if len(calls) == number:
            act()
        return method(self, told)

    monkeypatch.setattr(pwm.simulation.sac_collection._TrainingJobs, "answer", answer)


@pytest.mark.usefixtures("keyboard_interrupts")
def test_stopped_or_killed_at_any_point_it_goes_on_to_the_same_bytes(
    trained, tmp_path, monkeypatch
):
    out = tmp_path / "data"
    with monkeypatch.context() as patch:
        at_answer(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match="The same command goes on"):
            collect(settings(out))
    assert EpisodeStore.open(out).count(TASKS[0]) == 3, "the episode under way was not lost"

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the agent's checkpoint and its episodes
        patch.setattr(EpisodeStore, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(settings(out))
    assert EpisodeStore.open(out).count(TASKS[0]) == 3
    assert list(out.glob(f"{AGENTS_DIRECTORY}/*/{TASKS[0]}/step_000000010"))

    with monkeypatch.context() as patch:
        at_answer(patch, 4, lambda: [child.kill() for child in multiprocessing.active_children()])
        collect(settings(out))
    assert result(out) == result(trained)


class Listener:
    """A worker's caller that lets everything go on."""

    def at(self, part: int) -> None:
        pass

    def ask(self, question: object) -> bool:
        return True


def test_without_its_agent_a_training_cannot_go_on(trained):
    store = EpisodeStore.open(trained)
    (source,) = store.sources
    trainer = AgentTrainer(
        Listener(), Training("sac", 3, trained, source, TINY), store.suite["swing"]
    )
    with pytest.raises(PwmError, match=r"the agent after 5 episodes is not in .*seed="):
        trainer.train_episodes(5, 6)


def test_a_replay_may_begin_with_episodes_of_other_sources(trained, tmp_path):
    store = EpisodeStore.open(trained)
    (source,) = store.sources
    config = replace(TINY, prior=[source], buffer_size=1000)
    for task in TASKS:
        trainer = AgentTrainer(
            Listener(), Training("sac", 4, trained, "another", config), store.suite[task]
        )
        replay = trainer.agent.model.replay_buffer
        episodes = [store.episode(task, index) for index in range(EPISODES)]
        assert replay.pos == sum(len(episode.action) for episode in episodes)
        assert replay.dones.sum() == sum(episode.terminated.sum() for episode in episodes)
        np.testing.assert_array_equal(
            replay.rewards[: replay.pos, 0], np.concatenate([e.reward for e in episodes])
        )
    out = shutil.copytree(trained, tmp_path / "data")
    with pytest.raises(
        PwmError, match=rf"'nothing', which .* does not have; its sources: {source}"
    ):
        collect(replace(settings(out, seed=4), sac=replace(TINY, prior=["nothing"])))
    collect(replace(settings(out, seed=4), sac=config))
    described = list(EpisodeStore.open(out).sources.values())
    assert "prior" not in described[0]["settings"]
    assert described[1]["settings"]["prior"] == [source]
    assert EpisodeStore.open(out).count(TASKS[0]) == 2 * EPISODES


def test_after_its_learning_episodes_an_agent_only_acts(trained, tmp_path):
    """In two pieces, of which the second begins when the agent has learned its last."""
    learning, config = EpisodeStore.open(trained), replace(TINY, learning_episodes=6)
    suite = learning.suite

    def trainer(of: Training) -> AgentTrainer:
        return AgentTrainer(Listener(), of, suite["swing"])

    whole = Training("sac", 3, tmp_path / "whole", "s", config)
    episodes = trainer(whole).train_episodes(0, EPISODES)
    parts = Training("sac", 3, tmp_path / "parts", "s", config)
    with EpisodeStore.create(tmp_path / "parts", suite) as store:
        store.add_source("s", {})
        store.append("swing", trainer(parts).train_episodes(0, 8), "s")
    later = trainer(parts).train_episodes(8, EPISODES)
    for one, other in zip(episodes[8:], later, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.action, other.action)
    ends = [(parts, 8), (parts, EPISODES), (whole, EPISODES)]
    agents = (of.agents(suite["swing"]) / step_name(n) for of, n in ends)
    first, *others = (digests(agent, "*.safetensors") for agent in agents)
    assert others == [first] * 2
    same = [
        np.array_equal(episode.action, learning.episode("swing", i).action)
        for i, episode in enumerate(episodes)
    ]
    assert same == [True] * 6 + [False] * (EPISODES - 6)
    assert describe_learner("sac", config)["settings"]["learning_episodes"] == 6
    assert "learning_episodes" not in describe_learner("sac", TINY)["settings"]


def agent_and_env(task: Task, config: SacConfig = TINY) -> tuple[Sb3Agent, RecordingEnv]:
    env = make_env(task)
    agent = Sb3Agent("sac", task, env, config, seed=0)
    return agent, RecordingEnv(env, agent)


def played(agent: Sb3Agent, env: gymnasium.Env, task: Task, seed: int) -> Episode:
    return run_episode(env, task, seed, {"sac": 1.0}, lambda name: agent)


@pytest.mark.parametrize(
    ("behaviour", "backend", "library"),
    [
        ("tqc", "torch", "sb3-contrib 2."),
        pytest.param("sac", "jax", "sbx-rl 0.", marks=pytest.mark.slow),
        pytest.param("tqc", "jax", "sbx-rl 0.", marks=pytest.mark.slow),
    ],
)
def test_agents_of_every_library_learn_and_are_put_down_and_taken_up(behaviour, backend, library):
    task = get_task("mw-reach")
    config = replace(TINY, backend=backend, learning_starts=20, train_freq=20)
    env = make_env(task)
    agent, other = (agent_class(config)(behaviour, task, env, config, seed) for seed in (0, 1))
    first = copy.deepcopy(agent.tensors())
    episode = played(agent, RecordingEnv(env, agent), task, seed=0)
    other.load(copy.deepcopy(agent.tensors()))  # from a disk it would be a copy too
    other.remember(episode)
    for one in (agent, other):
        again = played(one, RecordingEnv(env, one), task, seed=1)
        assert again.action.shape == (100, 4)
    changed = []
    for group, tensors in agent.tensors().items():
        for name, tensor in tensors.items():
            assert torch.equal(other.tensors()[group][name], tensor), f"{group} {name}"
            changed += [name] if not torch.equal(first[group].get(name, -tensor), tensor) else []
    assert len(changed) > 20, "its networks and their optimizers"
    assert describe_learner(behaviour, config)["library"].startswith(library)


@pytest.mark.slow  # to compile
@pytest.mark.spawned  # JAX has threads of its own
def test_in_jax_too_a_training_in_pieces_gives_the_same_bytes(tmp_path):
    def trained_in(directory: str, *pieces: int) -> dict[str, str]:
        jax = replace(TINY, backend="jax", random_episodes=1)
        for episodes in pieces:
            given = settings(tmp_path / directory / "data", episodes={"swing": episodes})
            store = collect(replace(given, sac=jax))
        return digests(store, "*.bin", "step_000000004/*.safetensors")

    for directory in ("whole", "parts"):
        (tmp_path / directory).mkdir()
    assert trained_in("whole", 4) == trained_in("parts", 3, 4)


@pytest.mark.parametrize("ends", [False, True])
def test_critics_bootstrap_beyond_a_time_limit_but_not_beyond_a_termination(ends):
    """Of the inverted pendulum, which falls, the first steps alone are an episode, or all."""
    task = Task(
        "balance", "gymnasium", 4, 1, 400 if ends else 4, 1, "InvertedPendulum-v5", "{}", 0.0, 1.0
    )
    agent, env = agent_and_env(task, replace(TINY, learning_starts=1000))
    episode = played(agent, env, task, seed=1)
    length = len(episode.action)
    assert (length < 400) if ends else (length == 4)
    replay = agent.model.replay_buffer
    done = replay._get_samples(np.arange(length)).dones[:, 0].tolist()
    assert done == [0.0] * (length - 1) + [float(ends)]


def test_a_replay_made_again_is_the_one_that_was_learned_from():
    task = get_task("mw-reach")
    config = replace(TINY, buffer_size=250, learning_starts=10_000)
    (learned, env), (told, _) = agent_and_env(task, config), agent_and_env(task, config)
    for seed in range(3):
        told.remember(played(learned, env, task, seed))
    found, expected = told.model.replay_buffer, learned.model.replay_buffer
    assert (found.pos, found.full) == (expected.pos, expected.full) == (50, True)
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_an_agent_learns_at_the_given_times_and_with_the_given_settings():
    task = get_task("mw-reach")
    config = SacConfig(
        learning_starts=60, train_freq=20, gradient_steps=3, batch_size=4, net_arch=[8, 6],
        ent_coef=0.2,
    )  # fmt: skip
    agent, env = agent_and_env(task, config)
    before = agent.tensors()["policy"]["actor.mu.weight"].clone()
    episode = played(agent, env, task, seed=0)
    assert len(episode.action) == 100
    assert agent.model._n_updates == 3 * 3, "after 60, 80 and 100 steps"
    after = agent.tensors()
    assert not torch.equal(before, after["policy"]["actor.mu.weight"])
    assert after["policy"]["actor.mu.weight"].shape == (4, 6)
    assert agent.model.gamma == task.discount
    assert set(after) == {"policy", "actor_optimizer", "critic_optimizer"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sac.batch_size=0", "sac.batch_size=0 must be at least 1"),
        ("sac.net_arch=[]", "sac.net_arch=[] must be widths"),
        ("sac.gamma=1.0", "sac.gamma=1.0 must be at least 0 and below 1"),
        ("sac.ent_coef=much", "sac.ent_coef=much must be auto or a number"),
        ("sac.backend=jaxx", "unknown sac.backend 'jaxx'; did you mean 'jax'?"),
        ("sac.tau=2", "sac.tau=2.0 must be between 0 and 1"),
        ("sac.learning_rate=0", "sac.learning_rate=0.0 must be above 0"),
        ("behaviour=sacc", "unknown behaviour 'sacc'; did you mean 'sac'?"),
    ],
)
def test_mistakes_are_refused_at_the_door(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "behaviour=sac", "out=data", *words.split()]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("torch", r"backend=torch needs stable-baselines3; pip install 'pwm-worldmodels\[sac\]'"),
        ("jax", r"backend=jax needs sbx-rl; pip install 'pwm-worldmodels\[sbx\]'"),
    ],
)
def test_a_missing_library_is_named(backend, message, tmp_path, monkeypatch):
    monkeypatch.setattr("pwm.simulation.sac_config.find_spec", lambda name: None)
    config = SacConfig(backend=backend)
    with pytest.raises(PwmError, match=message):
        collect(CollectConfig(str(tmp_path / "data"), behaviour="sac", sac=config))
    assert not list(tmp_path.iterdir())
