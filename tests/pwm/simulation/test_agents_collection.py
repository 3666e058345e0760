"""Agents of several tasks that learn in one loop, and the record of all their episodes."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import digests

import pwm.simulation.agents_training
from envs import make_env
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.signals import Interrupted
from pwm.core.suites import Task
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.simulation.agents_collection import _Loop
from pwm.simulation.agents_config import AgentsConfig
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.rollout import episode_seed
from pwm.simulation.simulator_slots import Begun, Stepped
from pwm.simulation.slot_episodes import TaskEpisodes

TASKS = ("swing", "balance")
DESCRIBED = """\
- {name: swing, env_id: Pendulum-v1, obs_dim: 3, action_dim: 1, episode_length: 20,
   score: {min: -1500, max: 0}}
- {name: balance, env_id: InvertedPendulum-v5, obs_dim: 4, action_dim: 1, episode_length: 12,
   score: {min: 0, max: 12}}
"""  # the first ends by time alone, the second also by falling
TINY = AgentsConfig(
    envs_per_task=3, random_episodes=4, learning_starts=50, updates_per_step=0.5, batch_size=8,
    net_arch=[8], buffer_size=150, device="cpu", compile="never",
)  # fmt: skip
EPISODES = 11  # the replay holds seven and a half, and not all slots end with the last


def settings(out: Path, agents: AgentsConfig = TINY, **more) -> CollectConfig:
    file = out.parent / "tasks.yaml"
    file.write_text(DESCRIBED)
    given = {"suite": str(file), "episodes": EPISODES, "seed": 3, "workers": 1} | more
    return CollectConfig(str(out), behaviour="agents", agents=agents, **given)


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
    ((key, source),) = store.sources.items()
    assert key.startswith("collect-agents-seed3-")
    assert source["settings"]["net_arch"] == [8] and "device" not in source["settings"]
    for task in TASKS:
        seeds = [episode_seed(3, task, index) for index in range(EPISODES)]
        assert store.episodes(task)["seed"].tolist() == seeds
        episodes = [store.episode(task, index) for index in range(EPISODES)]
        assert [e.behaviour for e in episodes] == ["random"] * 4 + ["agents"] * (EPISODES - 4)
        env = make_env(store.suite[task])
        for episode in (episodes[0], episodes[-1]):
            obs, _ = env.reset(seed=episode.seed)
            np.testing.assert_array_equal(obs, episode.obs[0])
            for t, action in enumerate(episode.action):
                obs, reward, *_ = env.step(action)
                np.testing.assert_array_equal(obs, episode.obs[t + 1])
                assert np.float32(reward) == episode.reward[t]
        falls = [episode.terminated[-1] for episode in episodes]
        assert any(falls) == (task == "balance")


def test_any_number_of_workers_gives_the_same_bytes(trained, tmp_path):
    assert result(collect(settings(tmp_path / "data", workers=4))) == result(trained)


def at_notes(monkeypatch, acts: dict[int, Callable[[], None]]) -> None:
    """Something happens when the simulators have made the n-th step."""
    method, calls = pwm.simulation.agents_training.AgentsTraining.note, []

    def note(self, *arguments):
        calls.append(arguments)
        acts.get(len(calls), lambda: None)()
        return method(self, *arguments)

    monkeypatch.setattr(pwm.simulation.agents_training.AgentsTraining, "note", note)


@pytest.mark.usefixtures("keyboard_interrupts")
def test_stopped_or_killed_at_any_point_it_goes_on_to_the_same_bytes(
    trained, tmp_path, monkeypatch
):
    out = tmp_path / "data"

    def stop() -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:  # between ends of episodes, before one is stored
        at_notes(patch, {7: stop})
        with pytest.raises(Interrupted, match="The same command goes on"):
            collect(settings(out))
    assert EpisodeStore.open(out).count("swing") == 0

    with monkeypatch.context() as patch:  # one task is stored, the other's agent alone is on disk
        append, calls = EpisodeStore.append, []

        def first_alone(self, *arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            append(self, *arguments)

        patch.setattr(EpisodeStore, "append", first_alone)
        patch.setattr("pwm.simulation.agents_training.SECONDS_BETWEEN_COMMITS", 0.0)
        at_notes(patch, {})
        with pytest.raises(KeyboardInterrupt):
            collect(settings(out))

    with monkeypatch.context() as patch:
        at_notes(
            patch,
            {
                5: lambda: [child.kill() for child in multiprocessing.active_children()],
                30: stop,
            },
        )
        with pytest.raises(Interrupted):
            collect(settings(out, workers=2))
    assert 0 < EpisodeStore.open(out).count("swing") < EPISODES
    collect(settings(out))
    assert result(out) == result(trained)


@pytest.mark.slow
def test_more_episodes_and_other_company_come_to_the_same_but_for_rounding(trained, tmp_path):
    """A task goes on after it was done, and another joins it, which catches up alone."""
    out = tmp_path / "data"
    collect(settings(out, episodes={"swing": 5, "balance": 0}))
    collect(settings(out))
    assert_alike(EpisodeStore.open(out), EpisodeStore.open(trained), EPISODES)


def assert_alike(one: EpisodeStore, other: EpisodeStore, until: int) -> None:
    """The same but for rounding, before the episode of an index; that one and those behind not."""
    for i in range(EPISODES):
        of_one, of_other = (store.episode("swing", i) for store in (one, other))
        assert np.allclose(of_one.action, of_other.action, atol=1e-3) == (i < until), i


def test_after_its_learning_episodes_an_agent_only_acts(trained, tmp_path):
    config = replace(TINY, learning_episodes=6)
    out = collect(settings(tmp_path / "data", config))
    fixed = EpisodeStore.open(out)
    (source,) = fixed.sources
    assert fixed.sources[source]["settings"]["learning_episodes"] == 6
    assert_alike(fixed, EpisodeStore.open(trained), 6)
    collect(settings(out, config, episodes={"swing": EPISODES + 4, "balance": EPISODES}))
    ends = [digests(out / f".agents/{source}/swing/step_{n:09d}", "networks-*") for n in (11, 15)]
    assert ends[0] == ends[1] != {}


def test_colored_noise_goes_on_after_a_stop(trained, tmp_path, monkeypatch):
    config = replace(TINY, noise_color=1.0)
    (tmp_path / "whole").mkdir()
    whole = collect(settings(tmp_path / "whole/data", config))
    store, white = EpisodeStore.open(whole), EpisodeStore.open(trained)
    ((key, source),) = store.sources.items()
    assert source["settings"]["noise_color"] == 1.0 and key not in white.sources
    assert_alike(store, white, TINY.random_episodes)
    out = tmp_path / "data"
    with monkeypatch.context() as patch:
        at_notes(patch, {47: lambda: signal.raise_signal(signal.SIGINT)})
        with pytest.raises(Interrupted):
            collect(settings(out, config))
    assert 0 < EpisodeStore.open(out).count("swing") < EPISODES
    collect(settings(out, config))
    assert result(out) == result(whole)


def test_without_its_agent_a_training_cannot_go_on(trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "data")
    shutil.rmtree(out / ".agents")
    with pytest.raises(PwmError, match=r"the agent after 11 episodes is not in .*seed="):
        collect(settings(out, episodes=12))


def test_replays_that_do_not_fit_are_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pwm.simulation.agents_training.free_memory", lambda: 2000)
    with pytest.raises(PwmError, match=r"the replays of 2 tasks, 150 steps each, take .* free"):
        collect(settings(tmp_path / "data"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("agents.batch_size=0", "agents.batch_size=0 must be at least 1"),
        ("agents.net_arch=[]", "agents.net_arch=[] must be widths"),
        ("agents.gamma=1.0", "agents.gamma=1.0 must be at least 0 and below 1"),
        ("agents.noise_color=-1", "agents.noise_color=-1.0 must be at least 0"),
        ("agents.tau=2", "agents.tau=2.0 must be between 0 and 1"),
        ("agents.updates_per_step=0", "agents.updates_per_step=0.0 must be above 0"),
        ("agents.buffer_size=3", "agents.buffer_size=3 must hold a step of each"),
        ("agents.compile=maybe", "unknown agents.compile 'maybe'"),
        ("agents.device=gpu", "unknown device 'gpu'; use auto, cpu, cuda or cuda:1"),
        ("behaviour=agent", "unknown behaviour 'agent'; did you mean 'agents'?"),
    ],
)
def test_mistakes_are_refused_at_the_door(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "collect=agents", "out=data", *words.split()]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_updates_are_as_many_as_were_asked_for():
    config = AgentsConfig(envs_per_task=3, learning_starts=9, updates_per_step=0.25)
    due = [config.updates_due(clock) for clock in range(43)]
    assert due[:3] == [0, 0, 0]
    assert sum(due[3:]) == 3 * 43 // 4 - 9 // 4
    assert set(due[3:]) == {0, 1}


SHORT = Task("short", "gymnasium", 1, 1, 4, 1, "E-v0", "{}", 0.0, 1.0)


def steps(*terminated: bool, at: float = 0.0) -> list[Stepped]:
    return [
        Stepped(slot, np.float32([at + slot]), slot, ended, False, None)
        for slot, ended in enumerate(terminated)
    ]


def played(*flags: tuple[bool, bool]) -> TaskEpisodes:
    episodes = TaskEpisodes(SHORT, 3, 2, 1, "agents")
    for clock, terminated in enumerate(flags):
        for episode in episodes.playing():
            if not episode.obs:
                assert episode.reach(np.float32([-1.0]), clock)
        episodes.add([np.float32([0.5])] * 2, steps(*terminated, at=10 * clock))
    return episodes


def test_an_episode_that_ends_early_waits_for_those_that_began_before():
    episodes = played((False, True), (False, False))
    assert (episodes.begun, episodes.complete) == (3, 0)
    assert episodes.pop_ready(9) == []
    episodes.add([np.float32([0.5])] * 2, steps(True, False))
    assert (episodes.begun, episodes.complete) == (4, 2)
    (first,) = episodes.pop_ready(1)
    assert first.action.shape == (3, 1) and first.terminated.tolist() == [False, False, True]
    assert first.success is None and first.behaviour == "random"
    (second,) = episodes.pop_ready(9)
    assert second.action.shape == (1, 1) and second.behaviour == "agents"
    assert episodes.places == [(0, 0), (0, 1)]
    assert [(e.index, e.slot, e.start) for e in episodes.playing()] == [(3, 0, 3), (2, 1, 1)]


def test_episodes_under_way_are_saved_and_their_transitions_have_their_places():
    episodes, again = played((False, True), (False, False), (True, False)), played()
    stored = episodes.pop_ready(1)
    again.restore(*episodes.saved())
    found = {}
    for places, obs, after, *_ in again.transitions(stored):
        for place, before, then in zip(places, obs, after, strict=True):
            found[int(place)] = float(before[0]), float(then[0])
    assert found == {0: (-1, 0), 1: (-1, 1), 2: (0, 10), 3: (-1, 11), 4: (10, 0), 5: (11, 21)} | {
        4: (10, 20)
    }
    assert again.saved()[1] == episodes.saved()[1]
    for name, values in episodes.saved()[0].items():
        np.testing.assert_array_equal(again.saved()[0][name], values)


def test_an_episode_that_its_seed_does_not_bring_back_begins_anew():
    episodes = played((False, False), (False, False))
    first, second = episodes.playing()
    assert second.reach(second.obs[-1], 2) and len(second.action) == 2
    assert not first.reach(np.float32([5.0]), 2)
    assert (first.action, first.start) == ([], 2)
    assert first.reach(np.float32([6.0]), 2) and first.obs == [np.float32([6.0])]


def test_orders_of_a_replaced_worker_are_given_again_when_it_is_where_it_was():
    class Training:
        """Two tasks of one slot each."""

        class _Member:
            finished = False

            def __init__(self, number: int) -> None:
                self.number, self.task = number, SHORT
                self.episodes = TaskEpisodes(SHORT, 3, 1, 0, "agents")

        def __init__(self) -> None:
            self.members, self.noted = [self._Member(0), self._Member(1)], []

        def act(self, active):
            return [[np.float32([0.1])] for _ in active]

        def note(self, active, acted, came):
            self.noted.append(sorted(came))
            for member, actions in zip(active, acted, strict=True):
                member.episodes.add(actions, [came[member.number, 0]])
            return []

    class Signals:
        requested = None

    training = Training()
    loop = _Loop(training, 1, 2, Signals())  # type: ignore[arg-type]
    one, two = loop.next_job(0), loop.next_job(1)
    assert loop.next_job(0) is None
    obs = np.float32([0.0])
    begins = loop.answer([(one, None), (two, None)])
    assert [[type(order).__name__ for order in orders] for orders in begins] == [["Begin"]] * 2
    acts = loop.answer([(one, [Begun(0, obs)]), (two, [Begun(1, obs)])])
    assert [[order.slot for order in orders] for orders in acts] == [[0], [1]]

    stepped = [Stepped(slot, obs + 1, 0.0, False, False, None) for slot in (0, 1)]
    again = loop.answer([(one, [stepped[0]]), (two, None)])  # the second worker was replaced
    assert again[0] == [] and again[1][0].actions == [] and not training.noted
    acts = loop.answer([(one, []), (two, [Begun(1, obs)])])
    assert acts[0] == [] and [order.slot for order in acts[1]] == [1]
    assert len(loop.answer([(one, []), (two, [stepped[1]])])[0]) == 1
    assert training.noted == [[(0, 0), (1, 0)]]
