from __future__ import annotations

import contextlib
import csv
import itertools
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from short_tasks import short_tasks
from stores import digests

import pwm.pipelines.grow
from pwm.cli.main import main
from pwm.core.suites import get_suite
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.evaluation.episode_log import EpisodeLog
from pwm.extraction.extract import extract
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.actor_critic import load_critic
from pwm.models.policy import load_policy
from pwm.models.world_model import load_world_model
from pwm.pipelines.growth_config import FirstRound, GrowConfig, RoundSettings
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.pretrain import pretrain
from pwm.reporting.growth_rounds import Round, TaskRound, read_rounds

TASKS = ("pendulum-swingup", "cup-catch")  # with a scripted controller, and without

WORDS = [
    "grow", "out=run", f"suite=[{','.join(TASKS)}]", "rounds=2", "device=cpu",
    "first.random=0", "first.ou=1", "first.scripted=2", "first.held=0", "first.mpc=0", "episodes=2",
    "pretrain.steps=12", "pretrain.batch_size=8", "pretrain.horizon.lengths=[2]",
    "pretrain.horizon.starts=[0.0]", "pretrain.save_every=5", "pretrain.model.encoder_dim=16",
    "pretrain.model.mlp_dim=16", "pretrain.model.latent_dim=16", "pretrain.model.num_bins=21",
    "extract.learner.iterations=6", "extract.learner.batch_size=8", "extract.learner.horizon=3",
    "extract.learner.networks.actor=[8]", "extract.learner.networks.critic=[8]",
    "collect.workers=1", "extract.learner.critic.batches=2", "extract.pool=64",
    "evaluate.episodes=2", "evaluate.workers=1",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _short_episodes():
    with short_tasks(TASKS, 40):
        yield


@pytest.fixture(scope="module")
def one_round(tmp_path_factory) -> Path:
    """The first round in the real simulators; not to be written into."""
    directory = tmp_path_factory.mktemp("one_round")
    with contextlib.chdir(directory):
        assert main([*WORDS, "rounds=1"]) == 0
    return directory / "run"


@pytest.fixture(scope="module")
def grown(one_round, tmp_path_factory) -> Path:
    """Two rounds, of which the second was asked for later; not to be written into."""
    directory = tmp_path_factory.mktemp("grown")
    shutil.copytree(one_round, directory / "run")
    with contextlib.chdir(directory):
        assert main(WORDS) == 0
    return directory / "run"


def networks(policies: Path, task: str) -> dict[str, torch.Tensor]:
    actor = load_policy(policies / task).actor.state_dict()
    return actor | load_critic(policies / task).values.state_dict()


def content(run: Path) -> dict[str, str]:
    """Everything that follows from the settings: no records of time, and no commits' bounds."""
    return digests(
        run,
        "data/*/*.bin",
        "round_*/episodes/*/*.bin",
        "round_*/world_model/checkpoints/*/*.safetensors",
        "round_*/world_model/metrics.jsonl",
        "round_*/policies/*/checkpoint.json",
        "round_*/policies/*/*.safetensors",
        "best/*/*",
        "round_*/policies/groups/*/metrics.jsonl",
        "round_*/results.json",
        "rounds.*",
        "curves/*",
    )


def test_the_store_is_an_ordinary_dataset_that_tells_its_sources(grown):
    store = EpisodeStore.open(grown / "data")
    assert list(verify(store)) == []
    assert store.suite.names == TASKS
    made = [(source["behaviour"], source["made_by"]) for source in store.sources.values()]
    assert made == [
        ("ou", "pwm collect"), ("scripted", "pwm collect"),
        ("policy", "pwm evaluate"), ("policy", "pwm collect"),
    ]  # fmt: skip
    assert set(list(store.sources.values())[3]["policy_sha256"]) == set(TASKS)
    for task, episodes in zip(TASKS, ([1, 2, 2, 2], [3, 0, 2, 2]), strict=True):
        assert [store.count(task, key) for key in store.sources] == episodes
        assert len(set(store.episodes(task)["seed"])) == 7


def test_what_scored_the_policies_of_a_round_is_in_the_next_ones_data(grown):
    data, recorded = (
        EpisodeStore.open(grown / "data"),
        EpisodeStore.open(grown / "round_00/episodes"),
    )
    results = json.loads((grown / "round_00" / "results.json").read_text())
    for task in TASKS:
        found = [data.episode(task, i) for i in (3, 4)]
        assert [episode.seed for episode in found] == results["seeds"] == [1000, 1001]
        returns = [episode.reward.sum() for episode in found]
        assert returns == pytest.approx(results["tasks"][task]["returns"], rel=1e-4, abs=1e-4)
        assert (found[0].obs == recorded.episode(task, 0).obs).all()


def test_each_round_is_recorded_and_drawn(grown):
    rounds = read_rounds(grown)
    assert [entry.number for entry in rounds] == [0, 1]
    for task in TASKS:
        found = [entry.tasks[task] for entry in rounds]
        assert [(r.added, r.episodes) for r in found] == [(3, 3), (4, 7)]
        assert all(0 <= r.normalized_score <= 100 for r in found)
    for task in TASKS:
        scores = [entry.tasks[task].normalized_score for entry in rounds]
        best = "round_01" if scores[1] >= scores[0] else "round_00"
        of_round = networks(grown / best / "policies", task)
        for name, weight in networks(grown / "best", task).items():
            assert torch.equal(of_round[name], weight), name
    with (grown / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["task"]) for row in rows] == [
        (str(number), task) for number in range(2) for task in TASKS
    ]
    score = rounds[1].tasks[TASKS[1]].normalized_score
    assert float(rows[-1]["normalized_score"]) == score
    results = json.loads((grown / "round_01" / "results.json").read_text())
    assert results["tasks"][TASKS[1]]["normalized_score"] == score
    for name in (*TASKS, "mean"):
        picture = (grown / "curves" / f"{name}.svg").read_text()
        assert "var(" not in picture  # not every viewer knows style sheets' variables
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    timing = json.loads((grown / "timing.json").read_text())
    assert all(set(timing[n]) == {"collect", "pretrain", "extract", "evaluate"} for n in "01")


def test_a_round_begins_with_the_weights_of_the_one_before(grown, tmp_path, monkeypatch):
    """Where a second round learns nothing, it has the first's world model and the best policies."""
    still = [
        "pretrain.lr=0", "pretrain.lr_final=0", "pretrain.init_normalization=keep",
        "extract.learner.optim={actor_lr: 0, critic_lr: 0, lr_final: 0}",
    ]  # fmt: skip
    settings = settings_of([*WORDS, *still], read_rounds(grown)[:1], monkeypatch)
    monkeypatch.chdir(grown.parent)
    world_model, policies = tmp_path / "world_model", tmp_path / "policies"
    pretrain(replace(settings.pretrain, out=str(world_model)))
    extract(replace(settings.extract, out=str(policies), checkpoint=str(world_model)))
    found = load_world_model(world_model).state_dict()
    for name, weight in load_world_model("run/round_00/world_model").state_dict().items():
        assert torch.equal(found[name], weight), name
    for task in TASKS:
        found = networks(policies, task)
        for name, weight in networks(Path("run/best"), task).items():
            assert torch.equal(found[name], weight), name


def stopping(monkeypatch, of: type, name: str, call: int, signum: int) -> None:
    """A signal comes once, in a certain call of a method."""
    method, calls = getattr(of, name), itertools.count(1)

    def stopped(self, *arguments, **named):
        if next(calls) == call:
            signal.raise_signal(signum)
        return method(self, *arguments, **named)

    monkeypatch.setattr(of, name, stopped)


@pytest.mark.usefixtures("keyboard_interrupts")
def test_stopped_in_every_stage_a_round_goes_on_to_the_same_bytes(
    one_round, grown, tmp_path, monkeypatch, capsys
):
    shutil.copytree(one_round, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for of, method, call, signum in (
        (EpisodeStore, "append", 1, signal.SIGINT),  # what was recorded
        (EpisodeStore, "append", 1, signal.SIGINT),  # what is collected
        (WorldModelLearner, "update", 7, signal.SIGTERM),
        (ActorCriticLearner, "iteration", 3, signal.SIGINT),
        (EpisodeLog, "add", 1, signal.SIGTERM),
    ):
        with monkeypatch.context() as patch:
            stopping(patch, of, method, call, signum)
            assert main(WORDS) == 128 + signum, method
        message = " ".join(capsys.readouterr().err.split())
        assert "he same command goes on from there" in message
        assert "Traceback" not in message
        assert len(read_rounds(tmp_path / "run")) == 1
    assert main(WORDS) == 0
    assert content(tmp_path / "run") == content(grown)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/round_*/*.json")}
    assert main(WORDS) == 0, "nothing was left to do"
    assert {path: path.stat().st_mtime_ns for path in before} == before


STALLED = [
    "improvement=1000", "stalled.episodes=2", "stalled.after=1", "stalled.below=101",
    "collect.sac.random_episodes=1", "collect.sac.net_arch=[8]", "collect.sac.batch_size=8",
    "collect.sac.train_freq=50",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("keyboard_interrupts")
def test_an_agent_fills_in_where_growth_has_stalled(grown, tmp_path, monkeypatch, capsys):
    shutil.copytree(grown, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, *STALLED, "rounds=3"]
    with monkeypatch.context() as patch:  # after the policies' episodes of both tasks
        stopping(patch, EpisodeStore, "append", 5, signal.SIGINT)
        assert main(words) == 128 + signal.SIGINT
    assert "The same command goes on" in " ".join(capsys.readouterr().err.split())
    assert main(words) == 0
    store = EpisodeStore.open("run/data")
    assert list(verify(store)) == []
    *_, source = store.sources
    assert store.sources[source]["library"].startswith("stable-baselines3")
    for task in TASKS:
        assert store.count(task, source) == 2
        behaviours = [store.episode(task, i).behaviour for i in range(store.count(task))]
        assert behaviours[-4:] == ["policy", "policy", "random", "sac"]
        assert read_rounds(Path("run"))[2].tasks[task].added == 6


def test_one_agent_a_task_goes_on_from_round_to_round(monkeypatch):
    before = [a_round(number, 10.0) for number in range(3)]
    collections = []
    for rounds in (before[:2], before):
        _, of_agents = settings_of([*WORDS, *STALLED], rounds, monkeypatch).collections()
        collections.append(of_agents)
    third, fourth = collections
    assert third.episodes == dict.fromkeys(TASKS, 2)
    assert fourth == replace(third, episodes=dict.fromkeys(TASKS, 4))
    assert third.behaviour == "sac" and third.sac.train_freq == 50


def settings_of(words: list[str], before: list[Round], monkeypatch) -> RoundSettings:
    """Of the next round of a command."""
    configs: list[GrowConfig] = []
    monkeypatch.setattr(pwm.pipelines.grow, "grow", configs.append)
    assert main(words) == 0
    return RoundSettings(configs[0], before)


def a_round(number: int, score: float) -> Round:
    task = TaskRound(2, 3, 900, score, None, 10 * score)
    return Round(number, score, None, dict.fromkeys(TASKS, task))


def test_stages_are_wired_from_round_to_round(monkeypatch):
    words = [
        *WORDS,
        "extract.learner.bc.weight=0.4",
        "bc_decay=0.5",
        "episodes=8",
        "min_episodes=2",
    ]
    first = settings_of(words, [], monkeypatch)
    assert [c.behaviour for c in first.collections()] == ["ou", "scripted"]
    assert (first.pretrain.init, first.extract.init) == (None, None)
    assert first.extract.learner.bc.weight == 0.4
    before = [a_round(0, 10.0), a_round(1, 60.0), a_round(2, 40.0)]
    fourth = settings_of(words, before, monkeypatch)
    (collection,) = fourth.collections()
    assert collection.policy == "run/best"
    assert collection.episodes == dict.fromkeys(TASKS, 4), "the third round was no improvement"
    assert fourth.pretrain.init == "run/round_02/world_model"
    assert fourth.pretrain.out == fourth.extract.checkpoint == "run/round_03/world_model"
    assert fourth.extract.init == "run/best"
    assert fourth.extract.out == fourth.evaluate.policy == "run/round_03/policies"
    assert fourth.extract.data == fourth.pretrain.data == collection.out == "run/data"
    assert fourth.extract.learner.bc.weight == 0.4 / 8
    seeds = [s.pretrain.seed for s in (first, fourth)]
    seeds += [c.seed for s in (first, fourth) for c in s.collections()]
    assert len(set(seeds)) == 5


def test_a_solved_task_keeps_policy_and_score_while_the_other_goes_on(
    one_round, tmp_path, monkeypatch, capsys
):
    shutil.copytree(one_round, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "run" / "rounds.json"
    rounds = json.loads(record.read_text())
    rounds["rounds"][0]["tasks"][TASKS[0]]["normalized_score"] = 99.0  # as if it had been
    record.write_text(json.dumps(rounds))
    assert main(WORDS) == 0
    store = EpisodeStore.open("run/data")
    assert [store.count(task) for task in TASKS] == [5, 7]
    recorded = EpisodeStore.open("run/round_01/episodes")
    assert [recorded.count(task) for task in TASKS] == [0, 2]
    first, second = (networks(Path(f"run/round_0{n}/policies"), TASKS[0]) for n in range(2))
    assert all(torch.equal(first[name], weight) for name, weight in second.items())
    results = [json.loads(Path(f"run/round_0{n}/results.json").read_text()) for n in range(2)]
    assert results[0]["tasks"][TASKS[0]] == results[1]["tasks"][TASKS[0]]
    assert "they are played again" not in capsys.readouterr().err
    rounds = json.loads(record.read_text())
    for task in TASKS:
        rounds["rounds"][1]["tasks"][task]["normalized_score"] = 99.0
    record.write_text(json.dumps(rounds))
    assert main([*WORDS, "rounds=4"]) == 0
    assert "growth ends after 2 rounds" in " ".join(capsys.readouterr().err.split())
    assert len(read_rounds(Path("run"))) == 2


def test_noise_and_planning_stand_in_for_scripts_that_are_not_there():
    suite = get_suite(["walker-run", "mw-push", "pendulum-spin"])
    assert FirstRound(random=0, ou=2, scripted=5, held=4, mpc=3).by_behaviour(suite) == {
        "ou": {"walker-run": 7, "mw-push": 2, "pendulum-spin": 2},
        "scripted": {"walker-run": 0, "mw-push": 5, "pendulum-spin": 5},
        "held": {"walker-run": 0, "mw-push": 4, "pendulum-spin": 0},
        "mpc": {"walker-run": 3, "mw-push": 0, "pendulum-spin": 0},
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("first.ou=-3", "first.ou=-3 must be at least 0"),
        ("first.scripted=0 first.ou=0", "first: it has no episode"),
        ("rounds=0", "rounds=0 must be at least 1"),
        ("bc_decay=2", "bc_decay=2.0 must be between 0 and 1"),
        ("pretrain.out=run/model", "must differ by round"),
        ("pretrain.init=nowhere", "pretrain: there is no nowhere"),
        ("pretrain.horizon.lengths=[600]", "pretrain: a horizon of 600 steps does not fit"),
        ("extract.learner.iterations=0", "extract.learner.iterations=0"),
        ("collect.policy_noise=-1", "collect.policy_noise=-1"),
        ("evaluate.episodes=0", "evaluate.episodes=0"),
        ("stalled.behaviour=ou", "unknown stalled.behaviour 'ou'"),
        ("collect_with=all", "unknown collect_with"),
        ("stalled.after=0", "stalled.after=0 must be at least 1"),
        ("stalled.episodes=9 collect.sac.batch_size=0", "collect.sac.batch_size=0"),
    ],
)
def test_mistakes_are_refused_before_the_first_stage(word, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, *word.split()]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_damaged_record_is_refused(grown, tmp_path, monkeypatch, capsys):
    shutil.copytree(grown, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "run" / "rounds.json"
    record.write_text(record.read_text().replace('"number": 1', '"number": 2'))
    assert main(WORDS) == 1
    assert "rounds.json is damaged" in " ".join(capsys.readouterr().err.split())


def test_another_suite_or_seed_does_not_go_on_with_a_run(grown, capsys, monkeypatch):
    monkeypatch.chdir(grown.parent)
    assert main([*WORDS, "seed=1"]) == 1
    assert "other settings (seed: 0 -> 1)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["pretrain.groups=2"], ["pretrain.sharing=soft"]], ids=["groups", "soft"]
)
def test_rounds_of_world_models_that_differ_by_group(words, tmp_path):
    """Each round goes on from those of the round before, task by task."""
    with contextlib.chdir(tmp_path):
        assert main([*WORDS, *words]) == 0
    runs = [tmp_path / "run" / f"round_0{number}" / "world_model" for number in range(2)]
    for task in TASKS:
        before, after = (load_world_model(run, tasks=[task]).state_dict() for run in runs)
        assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert len(read_rounds(tmp_path / "run")) == 2
