"""``pwm adapt``: a world model learns tasks that it has never seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pwm.adaptation.batches import MixedBatches
from pwm.adaptation.config import AdaptConfig
from pwm.adaptation.errors import Errors, error_table, held_out_errors, thinned, worst_forgotten
from pwm.adaptation.new_tasks import (
    begin_with,
    normalize_new,
    ranked_embeddings,
    widened,
    with_new_tasks,
)
from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.fingerprints import definitions
from pwm.core.progress import console
from pwm.core.suites import Suite
from pwm.core.validation import nearest
from pwm.data.inspection import open_checked
from pwm.data.problems import BadData
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.data.windows.batch import Batch
from pwm.data.windows.sampler import WindowSampler
from pwm.models.world_model import KIND, WorldModel, load_world_model
from pwm.multitask.finetuning import OthersShare
from pwm.pretraining.data_warnings import Traits, data_warnings
from pwm.pretraining.diagnostics import held_out_windows
from pwm.pretraining.finetune import (
    Ready,
    Windows,
    train_all,
    train_deltas,
    train_embeddings_alone,
    train_important,
)
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.targets import some_windows
from pwm.pretraining.training_loop import Source, train
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import use_device
from pwm.runtime.distributed import Ranks
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.run_dir import open_run
from pwm.runtime.training_checkpoints import list_steps, load_latest

REPORT = "adaptation.json"

_OLD_EVERY = 4  # windows of old tasks, which may be very many


def adapt(config: AdaptConfig) -> Path:
    """Add tasks to a world model and train it on them, going on from what there is in ``out``.

    Returns:
        The directory, which :func:`load_world_model` opens.

    Raises:
        PwmError: for settings, data or a world model that do not fit.
        Interrupted: after saving, when SIGINT or SIGTERM asked for it.
    """
    config.validate()
    device = use_device(config.device)
    model = load_world_model(config.checkpoint, device)
    if config.embedding_of is not None and config.embedding_of not in model.suite:
        hint = nearest(config.embedding_of, model.suite.names)
        raise PwmError(
            f"embedding_of={config.embedding_of} is no task of {config.checkpoint}{hint or ';'} "
            "give one that it has learned, or null for the one with the lowest loss."
        )
    data = _Data.open(config, model, device)
    out = Path(config.out)
    made_of = inputs_made_of(config) | definitions(data.suite)
    begun = any(list_steps(path / "checkpoints") for path in (out, out / "embedding"))
    with open_run(out, "adapt", config, made_of, list(made_of) if begun else ()):
        try:
            _adapt(config, model, data, out)
        finally:
            data.bad.report(console.print)
    return out


def _adapt(config: AdaptConfig, model: WorldModel, data: _Data, out: Path) -> None:
    whole = config.finetune != "none"
    model = widened(model, data.suite)
    normalize_new(model, data.store, data.new, data.bad)
    ranking = {
        data.suite.tasks[task].name: ranked_embeddings(
            model, task, data.known, data.windows_of_new, config
        )
        for task in data.new
    }
    for task, ranked in ranking.items():
        start = config.embedding_of or ranked[0][0]
        begin_with(model, model.suite.id(task), start)
        best = ", ".join(f"{name} {loss:.3f}" for name, loss in ranked[:3])
        console.print(f"{task} begins with the embedding of {start} (losses: {best}).")
    new = {"start": held_out_errors(model, data.windows_of_new, config)}
    old = {"before": held_out_errors(model, data.windows_of_old, config)}
    report = _Report(out, ranking, new, old)
    of_embedding = out / "embedding" if whole else out
    new["embedding"], after = _stage(
        config.of_embedding(), data, of_embedding, "embedding",
        lambda: train_embeddings_alone(model, data.new), model,
    )  # fmt: skip
    if whole:
        report.write()
        model = load_world_model(of_embedding, model.bins.device)
        new["finetuned"], after = _stage(
            config, data, out, config.finetune, lambda: _ready(config, model, data), model
        )
    if data.windows_of_old:
        old["after"] = after
    report.write()
    console.print(error_table(new, old if data.windows_of_old else {}))


def _stage(
    config: AdaptConfig,
    data: _Data,
    directory: Path,
    name: str,
    make_ready: Callable[[], Ready],
    model: WorldModel,
) -> tuple[Errors, Errors]:
    """Train what a function makes ready; returns the errors in new and old tasks after that."""
    make_directory(directory)
    torch.manual_seed(config.seed)
    ready = make_ready()
    for line in ready.lines:
        console.print(line, soft_wrap=True)
    device = model.bins.device
    accelerator = Acceleration(config.compile, config.precision).prepare(device)
    discount = torch.tensor([task.discount for task in model.suite], device=device)
    learner = WorldModelLearner(model, config, discount, accelerator, ready.deltas)
    checkpoint = load_latest(directory / "checkpoints", KIND, console.print)
    start = 0
    if checkpoint is not None:
        learner.load(checkpoint)
        start = int(checkpoint.meta["step"])
    is_embedding = name == "embedding"
    batches = data.batches(config, 0.0 if is_embedding else config.others)
    source = Source(batches, data.store.digest, f"adapt: {name}", "adaptation")
    train(learner, config, source, data.windows_of_new, directory, start, Ranks())
    model = load_world_model(directory, device)
    return (
        held_out_errors(model, data.windows_of_new, config),
        held_out_errors(model, data.windows_of_old, config),
    )


def _ready(config: AdaptConfig, model: WorldModel, data: _Data) -> Ready:
    """Have that of a model train which ``finetune`` says."""
    if config.finetune == "adaptive":
        windows = data.some_windows(config)
        return train_important(model, data.new, windows, config.finetuning, config)
    if config.finetune == "lora":
        base, out = Path(config.checkpoint), Path(config.out)
        return train_deltas(model, data.new, config.finetuning, base, out)
    return train_all(model)


@dataclass
class _Report:
    """What is written of an adaptation, as it goes on."""

    out: Path
    ranking: dict[str, list[tuple[str, float]]]
    new: dict[str, Errors]
    old: dict[str, Errors]

    def write(self) -> None:
        embeddings: dict[str, Any] = {
            task: [{"embedding_of": name, "loss": loss} for name, loss in ranked]
            for task, ranked in self.ranking.items()
        }
        content: dict[str, Any] = {"embeddings": embeddings, "new_tasks": self.new}
        if any(self.old.values()):
            content |= {"old_tasks": self.old, "most_forgotten": worst_forgotten(self.old)}
        write_atomically(self.out / REPORT, json.dumps(content, indent=1).encode())


@dataclass
class _Data:
    """The stores of new and old tasks, and held-out windows of both.

    Attributes:
        suite: the tasks of the world model and behind them the new ones.
        known: how many it has; the ids from there on are ``new``.
    """

    store: EpisodeStore
    old_store: EpisodeStore | None
    suite: Suite
    known: int
    bad: BadData
    device: torch.device
    episodic: bool
    windows_of_new: list[Batch]
    windows_of_old: list[Batch]

    @classmethod
    def open(cls, config: AdaptConfig, model: WorldModel, device: torch.device) -> _Data:
        """Open and check the data; raises PwmError for those that do not fit the model."""
        bad = BadData(config.on_error)
        store = open_checked(config.data, bad)
        suite = with_new_tasks(model.suite, config.task, store, config.checkpoint)
        names = suite.names[len(model.suite) :]
        traits = Traits(model.size, model.has_q, model.episodic)
        for line in data_warnings(store, suite, names, bad, traits, refuses=True):
            console.print(line, soft_wrap=True)
        of_new = held_out_windows(store, suite, config.seed, device, names, bad, model.episodic)
        old_store, of_old = None, []
        if config.old_data is not None:
            old_store = open_checked(config.old_data, bad)
            old = [task.name for task in shared_tasks(old_store, model.suite)]
            of_old = thinned(
                held_out_windows(old_store, suite, config.seed, device, old, bad, model.episodic),
                _OLD_EVERY,
            )
        return cls(
            store, old_store, suite, len(model.suite), bad, device, model.episodic, of_new, of_old
        )

    @property
    def new(self) -> list[int]:
        """Ids of the new tasks."""
        return list(range(self.known, len(self.suite)))

    def batches(
        self, config: AdaptConfig, others: float
    ) -> Callable[[int, int, int], Iterator[Batch]]:
        """Those of a stage, with a share of old tasks at first."""
        share = OthersShare(config.finetune, others, config.finetuning, config.steps)
        old = self._sampler(config, old=True) if others else None
        return MixedBatches(self._sampler(config), old, share).iterate

    def some_windows(self, config: AdaptConfig) -> Windows:
        """Windows by which importance is measured."""
        count, others = config.finetuning.windows, None
        if self.old_store is not None:
            others = some_windows(self._sampler(config, old=True), count)
        return Windows(some_windows(self._sampler(config), count), others)

    def _sampler(self, config: AdaptConfig, old: bool = False) -> WindowSampler:
        store, names = self.store, self.suite.names[self.known :]
        if old:
            assert self.old_store is not None
            known = Suite(self.suite.name, self.suite.tasks[: self.known])
            store = self.old_store
            names = tuple(task.name for task in shared_tasks(store, known))
        return WindowSampler(
            store, max(config.horizon.lengths), config.batch_size, config.seed, suite=self.suite,
            tasks=names, device=self.device, data_device=config.data_device,
            memory=int(config.data_memory * 2**30), bad=self.bad, terminations=self.episodic,
        )  # fmt: skip
