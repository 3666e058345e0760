"""Settings of growth: of its rounds, of the stages of one, and of steps in the place of rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.layout import BEST
from pwm.core.protocols import with_metaworld
from pwm.core.settings import Choices, require_inputs, setting
from pwm.core.suites import Suite, get_suite
from pwm.core.validation import (
    error_prefix,
    require_at_least,
    require_choice,
    require_resume,
    require_seed,
    require_share,
    require_valid,
)
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.evaluation.videos import require_frames
from pwm.extraction.config import ExtractConfig
from pwm.pipelines.best_policies import best_so_far
from pwm.pipelines.episode_budget import StalledConfig, next_episode_budget
from pwm.pipelines.growth_steps import COLLECT, GROW, REPORT, ROUND, STAGES, Step, planned_step
from pwm.pretraining.config import PretrainConfig, require_horizons_fit
from pwm.reporting.growth_rounds import Round
from pwm.reporting.report import ReportConfig
from pwm.runtime.device import resolve_device
from pwm.runtime.run_dir import require_output
from pwm.runtime.seeding import stream_seed
from pwm.simulation.behaviors import can_hold, has_controller
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.simulator_mpc import can_plan

_OUT = "{out}"
COLLECT_WITH = ("best", "current", "both")


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
        collect_with: whose policies make the episodes of later rounds: ``best``, each task's best
            so far; ``current``, those of the round before; or ``both``, half of them each.
        record_evaluation: put the episodes that score a round's policies into the next one's data.
        solved: a task whose best policy scored as much, 0..100, keeps it: later rounds collect,
            extract and play nothing for it, and end when all tasks have. Null for none, ever.
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
    collect_with: str = setting("best", may_change=True)
    record_evaluation: bool = setting(True, may_change=True)
    solved: float | None = setting(95.0, may_change=True)
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
        require_choice(self, "collect_with", COLLECT_WITH)
        if self.solved is not None:
            require_at_least(self, 0, "solved")
        require_resume(self)
        resolve_device(self.device)
        require_output(self)
        suite = get_suite(self.suite)
        require_valid("first", self.first)
        for name in STAGES:
            if ROUND not in (path := getattr(self, name).out):
                raise PwmError(f"{name}.out={path} must differ by round; put {ROUND} into it.")
        first = RoundSettings(self, [])
        for collection in first.collections():
            require_valid("collect", collection)
        require_valid("stalled", self.stalled)
        if self.stalled.episodes:
            one = dict.fromkeys(suite.names, 1)
            require_valid("collect", first.agent_collection(one))
        made = [*before, self.collect.out]
        for name in STAGES:
            stage = getattr(first, name)
            require_valid(name, stage)
            error_prefix(name, require_inputs, stage, made)
            made.append(stage.out)
        if self.pretrain.init is None:
            error_prefix("pretrain", require_horizons_fit, self.pretrain, suite)
        if self.evaluate.video or self.evaluate.strip:
            error_prefix("evaluate", require_frames, suite)
        if self.record_evaluation and self.evaluate.metaworld is not None:
            played, stored = self.evaluate.metaworld, self.collect.metaworld
            if with_metaworld(suite, played) != with_metaworld(suite, stored):
                raise PwmError(
                    f"evaluate.metaworld={played} plays other episodes than collect.metaworld="
                    f"{stored} stores; give both the same, or record_evaluation=false."
                )

    def round_path(self, template: str, number: int) -> str:
        """A path of a round."""
        return template.replace(_OUT, self.out).replace(ROUND, f"{number:02d}")

    def planned_steps(self) -> list[Step]:
        """The steps with all of their settings.

        Raises:
            PwmError: for a step that is no command with settings.
        """
        blocks: dict[str, Any] = {name: getattr(self, name) for name in (COLLECT, *STAGES)}
        for name in ("pretrain", "extract"):
            blocks[name] = replace(blocks[name], device=self.device)
        blocks |= {GROW: replace(self, steps=[]), REPORT: ReportConfig()}
        return [planned_step(number, step, blocks) for number, step in enumerate(self.steps)]


class RoundSettings:
    """The settings of the stages of the round that comes next.

    Args:
        config: of the growth.
        before: the rounds that are complete.
    """

    def __init__(self, config: GrowConfig, before: Sequence[Round]) -> None:
        self._config, self._before = config, before
        self._number = len(before)
        self.last = self._number - 1
        self._suite = get_suite(config.suite)
        self._seed = stream_seed(config.seed, f"round {self._number}")

    def _here(self, template: str) -> str:
        return self._config.round_path(template, self._number)

    def collections(self) -> list[CollectConfig]:
        """One for each behaviour that makes episodes in this round."""
        config = self._config
        if self._number:
            collections = [
                self._collection("policy", policies, episodes, stream)
                for stream, policies, episodes in self._acting()
                if any(episodes.values())
            ]
            if any((wanted := self.agent_episodes()).values()):
                collections.append(self.agent_collection(wanted))
            return collections
        made = config.first.by_behaviour(self._suite)
        return [self._collection(name, None, episodes) for name, episodes in made.items()]

    def _acting(self) -> list[tuple[str, str, dict[str, int]]]:
        """Which policies act: a name for what they draw, their directory, and episodes by task."""
        config, budget = self._config, self.next_episode_budget()
        best, current = f"{config.out}/{BEST}", config.round_path(config.extract.out, self.last)
        if config.collect_with == "best":
            return [("policy", best, budget)]
        if config.collect_with == "current":
            return [("policy", current, budget)]
        are_best = {task for task in budget if self.best_so_far(task)[0] == self.last}
        of_current = {t: 0 if t in are_best else n // 2 for t, n in budget.items()}
        of_best = {task: n - of_current[task] for task, n in budget.items()}
        return [("policy", best, of_best), ("current policy", current, of_current)]

    def _collection(
        self, behaviour: str, policy: str | None, episodes: dict[str, int], stream: str = ""
    ) -> CollectConfig:
        return replace(
            self._config.collect,
            behaviour=behaviour,
            policy=policy,
            episodes=episodes,
            seed=stream_seed(
                self._seed, stream or behaviour
            ),  # so that no two share their first states
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
        config, solved = self._config, self.solved()
        return {
            name: 0
            if name in solved
            else next_episode_budget(
                found, config.episodes, config.min_episodes, config.improvement
            )
            for name, found in self._scores().items()
        }

    def best_so_far(self, task: str) -> tuple[int, float]:
        """The round of a task's best policy, and its score; of a round after the first."""
        return best_so_far(self._before, task)

    def solved(self) -> list[str]:
        """Tasks whose best policy is good enough to be left alone."""
        least = self._config.solved
        if least is None or not self._before:
            return []
        return [name for name in self._suite.names if self.best_so_far(name)[1] >= least]

    def recorded(self) -> list[Path]:
        """The stores of what scored the policies of the rounds before, where there are some."""
        if not self._config.record_evaluation:
            return []
        paths = (Path(self._recorded_by(number)) for number in range(self._number))
        return [path for path in paths if path.is_dir()]

    def _recorded_by(self, number: int) -> str:
        settings = self._config.evaluate
        return self._config.round_path(settings.record or f"{settings.out}/episodes", number)

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
        settings, init = self._config.pretrain, self._config.pretrain.init
        if self._number:
            init = self._config.round_path(settings.out, self.last)
        return replace(
            settings if init is not None else settings.from_nothing(),
            data=self._here(settings.data),
            out=self._here(settings.out),
            init=init,
            seed=self._seed,
            device=self._config.device,
        )

    @property
    def extract(self) -> ExtractConfig:
        """Of this round."""
        settings, fade = self._config.extract, self._config.bc_decay**self._number
        solved = self.solved()
        learner = replace(settings.learner, bc=settings.learner.bc.faded(fade))
        return replace(
            settings,
            checkpoint=self._here(settings.checkpoint),
            data=self._here(settings.data),
            out=self._here(settings.out),
            init=f"{self._config.out}/{BEST}" if self._number else settings.init,
            learner=learner,
            tasks=[n for n in self._suite.names if n not in solved] if solved else settings.tasks,
            seed=self._seed,
            device=self._config.device,
        )

    @property
    def evaluate(self) -> EvaluateConfig:
        """Of this round."""
        settings, record = self._config.evaluate, self._config.record_evaluation
        return replace(
            settings,
            policy=self._here(settings.policy),
            out=self._here(settings.out),
            record=self._recorded_by(self._number) if record else settings.record,
        )

    @property
    def best_again(self) -> EvaluateConfig:
        """Of the best policies so far on this round's episodes."""
        return replace(
            self.evaluate,
            policy=f"{self._config.out}/{BEST}",
            out=self._here(f"{self._config.evaluate.out}/best_again"),
            baselines=[],
            video=0,
            strip=0,
            record=None,
        )
