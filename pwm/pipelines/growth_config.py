"""Settings of growth: of its rounds, of the stages of one, and of steps in the place of rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.layout import BEST
from pwm.core.settings import Choices, require_inputs, setting
from pwm.core.suites import Suite, get_suite
from pwm.core.validation import (
    error_prefix,
    nearest,
    require_at_least,
    require_resume,
    require_seed,
    require_share,
    require_valid,
    with_changes,
)
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.evaluation.videos import require_frames
from pwm.extraction.config import ExtractConfig
from pwm.pipelines.episode_budget import StalledConfig, next_episode_budget
from pwm.pretraining.config import PretrainConfig, require_horizons_fit
from pwm.reporting.growth_rounds import Round
from pwm.reporting.report import ReportConfig
from pwm.runtime.device import resolve_device
from pwm.runtime.run_dir import require_output
from pwm.runtime.seeding import stream_seed
from pwm.simulation.behaviors import can_hold, has_controller
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.simulator_mpc import can_plan

_ROUND, _OUT = "{round}", "{out}"
_COLLECT, _GROW, _REPORT = "collect", "grow", "report"
_STAGES = ("pretrain", "extract", "evaluate")
_STEPS = (_COLLECT, *_STAGES, _GROW, _REPORT)


@dataclass
class FirstRound:
    """Episodes per task that each behaviour makes in the first round.

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
    stands for the number of a round, and ``{out}`` for ``out``. Each round begins with the world
    model of the one before and the best policies so far; the first begins with ``pretrain.init``
    and ``extract.init`` if they are given.

    Attributes:
        out: gets the store, a directory a round, each task's best policy so far in best/,
            rounds.json, rounds.csv, and pictures in curves/.
        suite: a suite, a task, or several tasks, in a list or joined with commas.
        rounds: how many in all; more can be asked for later.
        seed: everything drawn in any round follows from it.
        device: of pretraining and extraction.
        first: what makes the episodes of the first round.
        episodes: per task in each later round, made by its policy with noise.
        improvement: points by which a score must exceed all before it to have risen. A task gets
            half as many episodes for each round since its score last did.
        min_episodes: episodes per task in any case.
        stalled: another source of episodes for tasks that do not get on.
        bc_decay: factor on the weights of behavior cloning from one round to the next.
        collect, pretrain, extract, evaluate: of a round.
        steps: done in the place of ``rounds`` rounds, one after another: each a command (collect,
            pretrain, extract, evaluate, grow or report) and in which settings it differs from its
            block, or for grow from all that is here, such as ``{collect: {behaviour: ou}}``.
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
    steps: list[Any] = field(default_factory=list)

    def validate(self) -> None:
        """Raise PwmError for what any stage could not work with, before the first one begins."""
        made: list[str] = []
        for number, step in enumerate(self.planned_steps()):
            error_prefix(f"steps[{number}]", step.require_possible, made)
            made.append(step.makes)
        if not self.steps:
            self.require_possible_rounds()

    def require_possible_rounds(self, before: Sequence[str] = ()) -> None:
        """Raise PwmError for what a stage of a round could not work with.

        Args:
            before: directories that will be there by then.
        """
        require_seed(self, "seed")
        require_at_least(self, 1, "rounds", "episodes", "min_episodes")
        require_at_least(self, 0, "improvement")
        require_share(self, "bc_decay")
        require_resume(self)
        resolve_device(self.device)
        require_output(self)
        suite = get_suite(self.suite)
        require_valid("first", self.first)
        for name in _STAGES:
            if _ROUND not in (path := getattr(self, name).out):
                raise PwmError(f"{name}.out={path} must differ by round; put {_ROUND} into it.")
        first = RoundSettings(self, [])
        for collection in first.collections():
            require_valid("collect", collection)
        require_valid("stalled", self.stalled)
        if self.stalled.episodes:
            one = dict.fromkeys(suite.names, 1)
            require_valid("collect", first.agent_collection(one))
        made = [*before, self.collect.out]
        for name in _STAGES:
            stage = getattr(first, name)
            require_valid(name, stage)
            error_prefix(name, require_inputs, stage, made)
            made.append(stage.out)
        if self.pretrain.init is None:
            error_prefix("pretrain", require_horizons_fit, self.pretrain, suite)
        if self.evaluate.video or self.evaluate.strip:
            error_prefix("evaluate", require_frames, suite)

    def round_path(self, template: str, number: int) -> str:
        """A path of a round."""
        return template.replace(_OUT, self.out).replace(_ROUND, f"{number:02d}")

    def planned_steps(self) -> list[Step]:
        """The steps with all of their settings.

        Raises:
            PwmError: for a step that is no command with settings.
        """
        blocks: dict[str, Any] = {name: getattr(self, name) for name in (_COLLECT, *_STAGES)}
        for name in ("pretrain", "extract"):
            blocks[name] = replace(blocks[name], device=self.device)
        blocks |= {_GROW: replace(self, steps=[]), _REPORT: ReportConfig()}
        return [_planned(number, step, blocks) for number, step in enumerate(self.steps)]


@dataclass(frozen=True)
class Step:
    """A command with its settings."""

    command: str
    config: Any

    @property
    def makes(self) -> str:
        """The path of what it makes."""
        return str(self.config.results if self.command == _REPORT else self.config.out)

    def require_possible(self, before: Sequence[str]) -> None:
        """Raise PwmError for settings that cannot work, before the first step begins.

        Args:
            before: what earlier steps make.
        """
        if self.command == _GROW:
            self.config.require_possible_rounds(before)
            return
        if self.command != _REPORT:
            self.config.validate()
        require_inputs(self.config, before)
        if _ROUND in self.makes:
            raise PwmError(f"{self.command} is not of a round; give it out= without {_ROUND}.")


def _planned(number: int, step: Any, blocks: Mapping[str, Any]) -> Step:
    if not isinstance(step, Mapping) or len(step) != 1:
        raise PwmError(f"steps[{number}]={step} must be one command, such as {{collect: {{}}}}.")
    ((command, changes),) = step.items()
    if command not in blocks:
        hint = nearest(str(command), _STEPS) or ";"
        raise PwmError(
            f"steps[{number}]: unknown {command}{hint} it is one of {', '.join(_STEPS)}."
        )
    try:
        return Step(command, with_changes(blocks[command], changes or {}))
    except PwmError as error:
        raise PwmError(f"steps[{number}]: {error}") from error


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
        return self._config.round_path(template, self._number)

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
        settings, before = self._config.pretrain, self._number - 1
        return replace(
            settings,
            data=self._here(settings.data),
            out=self._here(settings.out),
            init=settings.init if before < 0 else self._config.round_path(settings.out, before),
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
