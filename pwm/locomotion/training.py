"""One run of a learner: iterations, evaluations on fixed episodes, checkpoints and a curve."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.learner import Learner, episode_returns
from pwm.runtime.metrics import MetricsLogger
from pwm.runtime.spaced_saves import SpacedSaves
from pwm.runtime.training_checkpoints import delete_steps, load_latest, save_step

_CURVE = "curve.json"
_KIND = "locomotion"


@dataclass
class Curve:
    """What evaluations found in the course of a run.

    Attributes:
        steps: of all environments together, at each evaluation; the first is before any learning.
        seconds: of learning until then, evaluations apart.
        cpu_seconds: of the process's own time on processors; other processes do not add to it.
        returns: by evaluation, those of the episodes.
        finished: whether the run came to its end.
    """

    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    returns: list[list[float]] = field(default_factory=list)
    finished: bool = False

    @property
    def means(self) -> np.ndarray:
        """(evaluations,) mean returns."""
        return np.array([np.mean(returns) for returns in self.returns])

    def save(self, directory: Path) -> None:
        """Write ``curve.json``."""
        write_atomically(directory / _CURVE, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, directory: Path) -> Curve:
        """Of a run's directory; an empty one if there is none yet.

        Raises:
            PwmError: if it is damaged.
        """
        file = directory / _CURVE
        if not file.is_file():
            return cls()
        try:
            return cls(**json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise PwmError(f"{file} is damaged; delete {directory} to run it again.") from error


@dataclass(frozen=True)
class RunSettings:
    """What a run depends on beside its learner.

    Attributes:
        steps: after which it ends, all environments together.
        evaluate_every: steps between evaluations.
        save_every: iterations between checkpoints.
    """

    steps: int
    evaluate_every: int
    save_every: int


class Run:
    """A learner in the course of its run.

    Args:
        make: gives the learner.
        evaluation: one environment per episode that is evaluated on.
        settings: see :class:`RunSettings`.
        directory: gets curve, metrics, checkpoints, and at the end what was learned.
        label: what the progress bar says.
    """

    def __init__(
        self,
        make: Callable[[], Learner],
        evaluation: BatchedSimulation,
        settings: RunSettings,
        directory: Path,
        label: str,
    ) -> None:
        self._make, self._evaluation, self._settings = make, evaluation, settings
        self._directory, self._label = directory, label
        self._saves = SpacedSaves()

    def finish(self) -> Curve:
        """Learn until the end, from where an earlier run was; the curve of a whole run at once.

        Raises:
            PwmError: for a learner whose policy no longer acts by numbers.
            Interrupted: after saving, when a signal asked for it.
        """
        make_directory(self._directory)
        curve = Curve.load(self._directory)
        if curve.finished:
            return curve
        learner = self._make()
        curve, spent = self._resumed(learner, curve)
        logger = MetricsLogger(self._directory, learner.steps)
        with closing(logger), StopSignals() as signals, progress_bar() as progress:
            bar = progress.add_task(
                self._label, total=self._settings.steps, completed=learner.steps, note=""
            )
            if not curve.steps:
                self._evaluate(learner, curve, spent)
            iterations = 0
            while learner.steps < self._settings.steps:
                before = learner.steps
                began = time.perf_counter(), time.process_time()
                metrics = learner.iteration()
                spent += (time.perf_counter() - began[0], time.process_time() - began[1])
                iterations += 1
                every, ended = self._settings.evaluate_every, learner.steps >= self._settings.steps
                if ended or learner.steps // every > before // every:
                    self._evaluate(learner, curve, spent)
                logger.log(learner.steps, metrics | {"seconds": spent[0], "cpu_seconds": spent[1]})
                note = f"return {curve.means[-1]:z.1f}"
                progress.update(bar, completed=min(learner.steps, self._settings.steps), note=note)
                periodic = iterations % self._settings.save_every == 0 and self._saves.due
                if not ended and (signals.requested or periodic):
                    logger.flush()
                    self._save(learner, curve, spent)
                if not ended:
                    signals.raise_if_requested(
                        f"{self._label} stopped at step {learner.steps} of {self._settings.steps}; "
                        "the same command goes on."
                    )
        learner.save(self._directory)
        curve.finished = True
        curve.save(self._directory)
        delete_steps(self._directory / "checkpoints")
        return curve

    def _resumed(self, learner: Learner, curve: Curve) -> tuple[Curve, np.ndarray]:
        """The curve and the (2,) seconds and CPU seconds until the newest checkpoint."""
        found = None
        if learner.resumes:
            found = load_latest(self._directory / "checkpoints", _KIND, console.print)
        if found is None:
            return Curve(), np.zeros(2)
        learner.load(found)
        meta = found.meta
        return Curve(**meta["curve"]), np.array([meta["seconds"], meta["cpu_seconds"]])

    def _save(self, learner: Learner, curve: Curve, spent: np.ndarray) -> None:
        if not learner.resumes:
            return
        meta = {"curve": asdict(curve), "seconds": spent[0], "cpu_seconds": spent[1]}
        with self._saves.saving():
            checkpoints = self._directory / "checkpoints"
            save_step(checkpoints, _KIND, learner.steps, learner.tensors(), meta, keep_last=1)

    def _evaluate(self, learner: Learner, curve: Curve, spent: np.ndarray) -> None:
        returns = episode_returns(learner, self._evaluation).tolist()
        if not np.isfinite(returns).all():
            raise PwmError(
                f"{self._label}: a return is not finite at step {learner.steps}, since the policy "
                "or the simulator broke down; try another seed or a lower learning rate."
            )
        curve.steps.append(learner.steps)
        curve.seconds.append(round(float(spent[0]), 3))
        curve.cpu_seconds.append(round(float(spent[1]), 3))
        curve.returns.append(returns)
        curve.save(self._directory)
