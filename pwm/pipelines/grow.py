"""Growing data, world model and policies together, in rounds, from nothing but the simulators.

A round collects episodes, trains the world model on with all episodes so far, learns every task's
policy on with it, and scores the policies; what scored them is data of the next round. Each task's
best policy so far collects the next round's episodes, and is what learns on. For one task this is
the online form of PWM (ICLR 2025, Algorithm 1) with few, large batches of episodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pwm.core.counted import counted
from pwm.core.files import make_directory, write_atomically
from pwm.core.fingerprints import MadeOf, definitions
from pwm.core.layout import BEST
from pwm.core.locks import DirectoryLock
from pwm.core.progress import console
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, get_suite
from pwm.data.store import EpisodeStore
from pwm.envs import environment_sources
from pwm.evaluation.episode_log import EpisodeLog
from pwm.evaluation.evaluate import OUTCOMES, evaluate
from pwm.evaluation.played_choice import extract
from pwm.evaluation.recording import add_recorded
from pwm.models.policy_directory import put_policies
from pwm.pipelines.best_policies import keep_best
from pwm.pipelines.growth_config import GrowConfig, RoundSettings
from pwm.pretraining.pretrain import pretrain
from pwm.reporting.growth_rounds import Round, read_rounds, rounds_table, write_rounds
from pwm.reporting.report import report_command
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.run_dir import open_run
from pwm.simulation.collect import collect
from pwm.simulation.opened_store import open_or_create


def grow(config: GrowConfig) -> Path:
    """Collect, pretrain, extract and evaluate in rounds, or in steps, each where it last stopped.

    Returns:
        The directory of the run.

    Raises:
        PwmError, Interrupted: as the stages do.
    """
    config.validate()
    steps = config.planned_steps()
    for number, step in enumerate(steps, 1):
        console.rule(f"step {number}/{len(steps)}: {step.command}", align="left")
        _COMMANDS[step.command](step.config)
    return Path(config.out) if steps else _grow_in_rounds(config)


def _grow_in_rounds(config: GrowConfig) -> Path:
    out, suite = Path(config.out), get_suite(config.suite)
    made_of = _made_of(config, suite)
    with open_run(out, "grow", config, made_of, made_of if read_rounds(out) else ()):
        rounds = read_rounds(out)
        if rounds:
            console.print(
                f"{out} has {len(rounds)} of {config.rounds} rounds; they are kept.", soft_wrap=True
            )
        _keep_best(config, rounds)
        while len(rounds) < config.rounds and not _all_solved(config, rounds):
            rounds.append(_play(config, rounds))
            write_rounds(out, suite.name, rounds)
            _keep_best(config, rounds)
            console.print(rounds_table(rounds))
    return out


def _made_of(config: GrowConfig, suite: Suite) -> MadeOf:
    """What the rounds are made from, beside what earlier ones make."""
    made_of = definitions(suite)
    for task in suite:
        made_of |= environment_sources(task)
    for block in ("pretrain", "extract"):
        found = inputs_made_of(getattr(config, block))
        made_of |= {f"{block}.{name}": found[name] for name in found if name == "init="}
    return made_of


_COMMANDS: Mapping[str, Callable[[Any], object]] = {
    "collect": collect,
    "pretrain": pretrain,
    "extract": extract,
    "evaluate": evaluate,
    "grow": _grow_in_rounds,
    "report": report_command,
}
"""By the name of a step."""


def _keep_best(config: GrowConfig, rounds: Sequence[Round]) -> None:
    if rounds:
        out = Path(config.out)
        keep_best(out / BEST, rounds, lambda n: Path(config.round_path(config.extract.out, n)))


def _all_solved(config: GrowConfig, rounds: Sequence[Round]) -> bool:
    """Whether there is nothing left to learn; says so."""
    names = get_suite(config.suite).names
    if len(RoundSettings(config, rounds).solved()) < len(names):
        return False
    console.print(
        f"Every task has reached solved={config.solved:g}; growth ends after "
        f"{counted(len(rounds), 'round')}."
    )
    return True


def _play(config: GrowConfig, before: Sequence[Round]) -> Round:
    """The next round; what was done of it before is found again, stage by stage."""
    settings, number, out = RoundSettings(config, before), len(before), Path(config.out)
    console.rule(f"round {number + 1}/{config.rounds}", align="left")
    with _timed(out, number, "collect"):
        _add_recorded(config, settings)
        for collection in settings.collections():
            collect(collection)
    with _timed(out, number, "pretrain"):
        pretrain(settings.pretrain)
    with _timed(out, number, "extract"):
        extract(settings.extract)
        put_policies(out / BEST, Path(settings.extract.out), settings.solved())
    with _timed(out, number, "evaluate"):
        _take_over_outcomes(config, settings)
        results = evaluate(settings.evaluate)
        best_before = {}
        if before and before[-1].seeds and before[-1].seeds != results.seeds:
            again = evaluate(settings.best_again).policy.tasks
            best_before = {name: score.normalized_score for name, score in again.items()}
    store = EpisodeStore.open(config.collect.out)
    counts = {}
    for name in get_suite(config.suite).names:
        record = store.record(name)
        earlier = before[-1].tasks[name].episodes if before else 0
        counts[name] = record.episodes - earlier, record.episodes, record.rows
    return Round.of(number, results.policy, counts, results.seeds, best_before)


def _add_recorded(config: GrowConfig, settings: RoundSettings) -> None:
    """Put what scored the policies of the rounds before into the data."""
    with StopSignals() as signals:
        for path in settings.recorded():
            recorded = EpisodeStore.open(path)
            with open_or_create(Path(config.collect.out), recorded.suite) as store:
                add_recorded(store, recorded)
            signals.raise_if_requested(
                f"stopped; what is in {config.collect.out} is kept. The same command goes on from "
                "there."
            )


def _take_over_outcomes(config: GrowConfig, settings: RoundSettings) -> None:
    """Of policies that are kept, have this round's evaluation know what they were scored on."""
    out = Path(settings.evaluate.out)
    for task in settings.solved():
        number, _ = settings.best_so_far(task)
        played = Path(config.round_path(config.evaluate.out, number)) / OUTCOMES
        if played.is_file():
            make_directory(out)
            with DirectoryLock(out):
                EpisodeLog(out / OUTCOMES).take_over(played, [task])


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
