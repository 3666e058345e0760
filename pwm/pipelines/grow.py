"""Growing data, world model and policies together, in rounds, from nothing but the simulators.

A round collects episodes, trains the world model on with all episodes so far, learns every task's
policy on with it, and scores the policies. Each task's best policy so far collects the next round's
episodes, and is what learns on. For one task this is the online form of PWM (ICLR 2025,
Algorithm 1) with few, large batches of episodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.layout import BEST
from pwm.core.progress import console
from pwm.core.settings import Choices, require_inputs, setting
from pwm.core.suites import Suite, get_suite
from pwm.core.validation import (
    error_prefix,
    require_at_least,
    require_resume,
    require_seed,
    require_share,
)
from pwm.data.store import EpisodeStore
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.extraction.config import ExtractConfig
from pwm.extraction.extract import extract
from pwm.pipelines.best_policies import keep_best
from pwm.pipelines.episode_budget import StalledConfig, next_episode_budget
from pwm.pretraining.pretrain import PretrainConfig, pretrain, require_horizons_fit
from pwm.reporting.growth_rounds import Round, read_rounds, rounds_table, write_rounds
from pwm.runtime.device import resolve_device
from pwm.runtime.run_dir import open_run, require_output
from pwm.runtime.seeding import stream_seed
from pwm.simulation.behaviors import can_hold, has_controller
from pwm.simulation.collect import CollectConfig, collect
from pwm.simulation.simulator_mpc import can_plan

_ROUND = "{round}"


def _of_round(template: str, number: int) -> str:
    return template.replace(_ROUND, f"{number:02d}")


@dataclass
class FirstRound:
    """Episodes a task that each behaviour makes in the first round.

    Attributes:
        random, ou: as ``pwm collect`` has them.
        scripted: likewise; where a task has no scripted controller, ``ou`` makes these too.
        held: likewise; of Meta-World's tasks.
        mpc: likewise, planned on the simulator; of dm_control's tasks without such a controller.
    """

    random: int = 10
    ou: int = 20
    scripted: int = 30
    held: int = 30
    mpc: int = 5

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "random", "ou", "scripted", "held", "mpc")
        if not self.random + self.ou + self.scripted:
            raise PwmError("it has no episode; give random, ou or scripted some.")

    def by_behaviour(self, suite: Suite) -> dict[str, dict[str, int]]:
        """Episodes by behaviour and task; none of a behaviour that makes none."""
        made: dict[str, dict[str, int]] = {
            name: {} for name in ("random", "ou", "scripted", "held", "mpc")
        }
        for task in suite:
            scripted = self.scripted if has_controller(task) else 0
            made["random"][task.name] = self.random
            made["ou"][task.name] = self.ou + self.scripted - scripted
            made["scripted"][task.name] = scripted
            made["held"][task.name] = self.held if can_hold(task) else 0
            plans = can_plan(task) and not has_controller(task)
            made["mpc"][task.name] = self.mpc if plans else 0
        return {name: by_task for name, by_task in made.items() if any(by_task.values())}


@dataclass
class GrowConfig:
    """Settings of ``pwm grow``.

    The blocks of the stages are those of the stages' own commands. In their paths ``{round}``
    stands for the number of a round. Each round begins with the world model of the one before and
    the best policies so far; the first begins with ``pretrain.init`` and ``extract.init`` if they
    are given.

    Attributes:
        out: gets the store, a directory a round, each task's best policy so far in best/,
            rounds.json, rounds.csv, and pictures in curves/.
        suite: a suite, a task, or several tasks, in a list or joined with commas.
        rounds: how many in all; more can be asked for later.
        seed: everything drawn in any round follows from it.
        device: of pretraining and extraction.
        first: what makes the episodes of the first round.
        episodes: a task in each later round, made by its policy with noise.
        improvement: points by which a score must exceed all before it to have risen. A task gets
            half as many episodes for each round since its score last did.
        min_episodes: episodes per task in any case.
        stalled: another source of episodes for tasks that do not get on.
        bc_decay: factor on the weights of behavior cloning from one round to the next.
        collect, pretrain, extract, evaluate: of a round.
    """

    presets: ClassVar[Choices] = {"grow": "quick"}

    out: str = MISSING
    suite: Any = "quick"
    rounds: int = setting(5, may_change=True)
    seed: int = 0
    device: str = setting("auto", may_change=True)
    resume: str = "auto"
    first: FirstRound = field(default_factory=FirstRound)
    episodes: int = setting(30, may_change=True)
    improvement: float = setting(2.0, may_change=True)
    min_episodes: int = setting(8, may_change=True)
    stalled: StalledConfig = setting(default_factory=StalledConfig, may_change=True)
    bc_decay: float = setting(0.7, may_change=True)
    # Later rounds may have other settings than earlier ones; a round that has begun may not.
    collect: CollectConfig = setting(
        default_factory=lambda: CollectConfig(out=MISSING), may_change=True
    )
    pretrain: PretrainConfig = setting(default_factory=PretrainConfig, may_change=True)
    extract: ExtractConfig = setting(default_factory=ExtractConfig, may_change=True)
    evaluate: EvaluateConfig = setting(default_factory=EvaluateConfig, may_change=True)

    def validate(self) -> None:
        """Raise PwmError for what any stage could not work with, before the first one begins."""
        require_seed(self, "seed")
        require_at_least(self, 1, "rounds", "episodes", "min_episodes")
        require_at_least(self, 0, "improvement")
        require_share(self, "bc_decay")
        require_resume(self)
        resolve_device(self.device)
        require_output(self)
        suite = get_suite(self.suite)
        error_prefix("first", self.first.validate)
        for name in ("pretrain", "extract", "evaluate"):
            if _ROUND not in (path := getattr(self, name).out):
                raise PwmError(f"{name}.out={path} must differ by round; put {_ROUND} into it.")
        first = RoundSettings(self, [])
        for collection in first.collections():
            error_prefix("collect", collection.validate)
        error_prefix("stalled", self.stalled.validate)
        if self.stalled.episodes:
            one = dict.fromkeys(suite.names, 1)
            error_prefix("stalled", first.agent_collection(one).validate)
        made = [self.collect.out]
        for name in ("pretrain", "extract", "evaluate"):
            stage = getattr(first, name)
            error_prefix(name, stage.validate)
            error_prefix(name, require_inputs, stage, made)
            made.append(stage.out)
        if self.pretrain.init is None:
            error_prefix("pretrain", require_horizons_fit, self.pretrain, suite)


class RoundSettings:
    """The settings of the stages of the round that comes next.

    Args:
        config: of the growth.
        before: the rounds that are complete.
    """

    def __init__(self, config: GrowConfig, before: Sequence[Round]) -> None:
        self._config, self._before = config, before
        self._number = len(before)
        self._suite = get_suite(config.suite)
        self._seed = stream_seed(config.seed, f"round {self._number}")

    def _here(self, template: str) -> str:
        return _of_round(template, self._number)

    def collections(self) -> list[CollectConfig]:
        """One for each behaviour that makes episodes in this round."""
        config = self._config
        if self._number:
            collections = [
                self._collection("policy", f"{config.out}/{BEST}", self.next_episode_budget())
            ]
            if any((wanted := self.agent_episodes()).values()):
                collections.append(self.agent_collection(wanted))
            return collections
        made = config.first.by_behaviour(self._suite)
        return [self._collection(name, None, episodes) for name, episodes in made.items()]

    def _collection(
        self, behaviour: str, policy: str | None, episodes: dict[str, int]
    ) -> CollectConfig:
        return replace(
            self._config.collect,
            behaviour=behaviour,
            policy=policy,
            episodes=episodes,
            seed=stream_seed(self._seed, behaviour),  # so that no two share their first states
        )

    def agent_collection(self, episodes: dict[str, int]) -> CollectConfig:
        """What agents that learn add; a task's is the same in all rounds, and goes on to learn.

        Args:
            episodes: by task name, all that the agent shall have made.
        """
        behaviour = self._config.stalled.behaviour
        collection = self._collection(behaviour, None, episodes)
        return replace(collection, seed=stream_seed(self._config.seed, f"fill {behaviour}"))

    def next_episode_budget(self) -> dict[str, int]:
        """Episodes by task name, in a round after the first."""
        config = self._config
        return {
            name: next_episode_budget(
                found, config.episodes, config.min_episodes, config.improvement
            )
            for name, found in self._scores().items()
        }

    def agent_episodes(self) -> dict[str, int]:
        """Episodes by task name that agents that learn shall have made after this round."""
        config = self._config
        return {
            name: config.stalled.wanted(found, config.improvement)
            for name, found in self._scores().items()
        }

    def _scores(self) -> dict[str, list[float]]:
        """By task name, of the rounds before."""
        return {
            name: [entry.tasks[name].normalized_score for entry in self._before]
            for name in self._suite.names
        }

    @property
    def pretrain(self) -> PretrainConfig:
        """Of this round."""
        settings = self._config.pretrain
        return replace(
            settings,
            data=self._here(settings.data),
            out=self._here(settings.out),
            init=_of_round(settings.out, self._number - 1) if self._number else settings.init,
            seed=self._seed,
            device=self._config.device,
        )

    @property
    def extract(self) -> ExtractConfig:
        """Of this round."""
        settings, fade = self._config.extract, self._config.bc_decay**self._number
        learner = replace(settings.learner, bc=settings.learner.bc.faded(fade))
        return replace(
            settings,
            checkpoint=self._here(settings.checkpoint),
            data=self._here(settings.data),
            out=self._here(settings.out),
            init=f"{self._config.out}/{BEST}" if self._number else settings.init,
            learner=learner,
            seed=self._seed,
            device=self._config.device,
        )

    @property
    def evaluate(self) -> EvaluateConfig:
        """Of this round."""
        settings = self._config.evaluate
        return replace(settings, policy=self._here(settings.policy), out=self._here(settings.out))


def grow(config: GrowConfig) -> Path:
    """Collect, pretrain, extract and evaluate in rounds, each where it last stopped.

    Returns:
        The directory of the run.

    Raises:
        PwmError, Interrupted: as the stages do.
    """
    config.validate()
    out, suite = Path(config.out), get_suite(config.suite)
    with open_run(out, "grow", config):
        rounds = read_rounds(out)
        _keep_best(config, rounds)
        while len(rounds) < config.rounds:
            rounds.append(_play(config, rounds))
            write_rounds(out, suite.name, rounds)
            _keep_best(config, rounds)
            console.print(rounds_table(rounds))
    return out


def _keep_best(config: GrowConfig, rounds: Sequence[Round]) -> None:
    if rounds:
        out = Path(config.out)
        keep_best(out / BEST, rounds, lambda n: Path(_of_round(config.extract.out, n)))


def _play(config: GrowConfig, before: Sequence[Round]) -> Round:
    """The next round; what was done of it before is found again, stage by stage."""
    settings, number, out = RoundSettings(config, before), len(before), Path(config.out)
    console.rule(f"round {number + 1}/{config.rounds}", align="left")
    with _timed(out, number, "collect"):
        for collection in settings.collections():
            collect(collection)
    with _timed(out, number, "pretrain"):
        pretrain(settings.pretrain)
    with _timed(out, number, "extract"):
        extract(settings.extract)
    with _timed(out, number, "evaluate"):
        results = evaluate(settings.evaluate)
    store = EpisodeStore.open(config.collect.out)
    counts = {}
    for name in get_suite(config.suite).names:
        record = store.record(name)
        earlier = before[-1].tasks[name].episodes if before else 0
        counts[name] = record.episodes - earlier, record.episodes, record.rows
    return Round.of(number, results.policy, counts)


@contextmanager
def _timed(out: Path, number: int, stage: str) -> Iterator[None]:
    """Adds the seconds that a stage takes to timing.json, also where it is interrupted."""
    started = time.time()
    try:
        yield
    finally:
        file = out / "timing.json"
        seconds = json.loads(file.read_bytes()) if file.is_file() else {}
        of_round = seconds.setdefault(str(number), {})
        of_round[stage] = round(of_round.get(stage, 0.0) + time.time() - started, 1)
        write_atomically(file, json.dumps(seconds, indent=1).encode())
