"""``finetune=`` of pretraining: from many tasks to some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from calls import before_call, terminate

from pwm.cli.main import main
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.models.world_model import load_world_model
from pwm.multitask.finetuning import Finetuning
from pwm.pretraining.config import PretrainConfig
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.targets import Targets
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.training_checkpoints import list_steps


def newest(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(list_steps(run / "checkpoints")[-1], "world_model").tensors["model"]


def finetune(toy, base: Path, out: Path, how: str, *words: str) -> list[str]:
    return toy.pretrain(
        out, f"init={base}", f"finetune={how}", "target=pendulum-swingup", "steps=6",
        "horizon.lengths=[2]", "horizon.starts=[0.0]", *words,
    )  # fmt: skip


def test_batches_have_the_tasks_that_the_schedule_says(toy):
    store = EpisodeStore.open(toy.data)
    sampler = WindowSampler(store, 2, 8, 0)
    config = PretrainConfig(
        data=str(toy.data), init="it", finetune="switch", target="pendulum-swingup", replay=0.75,
        finetuning=Finetuning(switch=0.5), steps=4,
    )  # fmt: skip
    targets = Targets(config, sampler)
    counts = [torch.bincount(batch.task).tolist() for batch in targets.batches(0, 4, 2)]
    assert targets.ids == [1]
    assert counts == [[6, 2], [6, 2], [0, 8], [0, 8]]
    windows = targets.windows(5)
    assert windows.target.task.tolist() == [1] * 5
    assert windows.others is not None and windows.others.task.tolist() == [0] * 5


@pytest.mark.parametrize("how", ["adaptive", "lora"])
def test_what_trains_is_what_was_said(how, toy, toy_world_model, tmp_path, capsys):
    """And an interrupted run goes on to the same bits."""
    words = ("finetuning.windows=4", "finetuning.part=0.2", "finetuning.by=layer", "replay=0.25")
    assert main(finetune(toy, toy_world_model, tmp_path / "whole", how, *words)) == 0
    before, after = newest(toy_world_model), newest(tmp_path / "whole")
    assert torch.equal(after["task_emb.weight"][0], before["task_emb.weight"][0])
    assert not torch.equal(after["task_emb.weight"][1], before["task_emb.weight"][1])
    if how == "adaptive":
        said = capsys.readouterr().err.split("units that train: ")[1].split(".\n")[0]
        named = {part.split()[0] for part in said.replace("\n", " ").split(", ")}
        layers = {name.removesuffix(".weight") for name in after if name.endswith(".weight")}
        layers = {name for name in layers if ".ln" not in name} - {"task_emb"}
        changed = {
            name
            for name in layers
            if not torch.equal(after[f"{name}.weight"], before[f"{name}.weight"])
        }
        assert changed == named and 0 < len(changed) < len(layers)
    model = load_world_model(tmp_path / "whole")
    assert model.suite.names == toy.tasks
    stopped = finetune(toy, toy_world_model, tmp_path / "stopped", how, *words)
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, WorldModelLearner, "update", terminate, 3)
        assert main(stopped) == 143
    assert main(stopped) == 0
    for name, tensor in newest(tmp_path / "stopped").items():
        assert torch.equal(tensor, after[name])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["finetune=full"], "finetune= and target= go together"),
        (["target=reacher-easy"], "finetune= and target= go together"),
        (["finetune=full", "target=reacher-easy"], "give it as init="),
        (["finetune=full", "target=walker-run", "init={}"], "no task that"),
        (["finetune=switch", "target=[reacher-easy,pendulum-swingup]", "init={}"], "other tasks"),
        (["finetune=full", "target=reacher-easy", "init={}", "freeze_encoder=true"], "leave"),
        (["finetune=lora", "target=reacher-easy", "init={}", "accumulate=2"], "accumulate"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, toy, toy_world_model, tmp_path, capsys):
    words = [word.format(toy_world_model) for word in words]
    assert main(toy.pretrain(tmp_path / "out", *words)) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())
