"""``sharing=`` of pretraining: heads that differ by group of tasks."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from calls import before_call, terminate
from three_tasks import CONFIG, SIZE, SUITE, make_batch
from torch import Tensor

from pwm.analysis.analyze import analyze
from pwm.analysis.config import AnalyzeConfig
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.hub.contents import gather
from pwm.interop.export_checkpoint import ExportConfig, export_checkpoint
from pwm.models.grouped_weights import of_tasks
from pwm.models.low_rank import on_its_base
from pwm.models.policy import load_policy
from pwm.models.world_model import (
    KIND,
    WorldModel,
    find_world_model,
    load_world_model,
    model_meta,
    model_of,
)
from pwm.models.world_models import load_world_models
from pwm.multitask.sharing import GroupHeads, HeadSharing
from pwm.pretraining.config import PretrainConfig
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.parallel_learner import ParallelLearner
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pwm.runtime.distributed import Ranks
from pwm.runtime.training_checkpoints import list_steps

CPU = Accelerator(torch.device("cpu"))
GROUPS = [[0, 2], [1]]
WAYS = {
    "soft": ["sharing=soft", "steps=8"],
    "branches": ["sharing=branches", "groups=2", "heads.dynamics=true", "steps=8"],
}


def make_model(q_and_prior: bool = False) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE, q_and_prior)
    with torch.no_grad():  # a fresh reward head is zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def make_heads(
    model: WorldModel, sharing: str, groups: list[list[int]] = GROUPS, **settings: float
) -> GroupHeads:
    found = HeadSharing(rank=2, **settings)
    names = ["reward_head", "dynamics"]
    return GroupHeads(model, names, groups, SUITE.names, sharing, found, seed=0)


def make_learner(
    model: WorldModel, heads: GroupHeads | None, accelerator: Accelerator = CPU, **changes: object
) -> WorldModelLearner:
    discount = torch.tensor([task.discount for task in SUITE])
    config = dataclasses.replace(CONFIG, **changes)
    return WorldModelLearner(model, config, discount, accelerator, heads)


def train(learner: WorldModelLearner, updates: int = 4) -> list[dict[str, Tensor]]:
    curve = []
    for step in range(updates):
        learner.set_learning_rate(step)
        curve.append(
            {name: value.clone() for name, value in learner.update(make_batch(step)).items()}
        )
    return curve


def stir(heads: GroupHeads) -> None:
    """Have the groups' weights differ."""
    with torch.no_grad():
        for parameter in heads.own:
            parameter.add_(0.2 * torch.randn_like(parameter))


def opened(model: WorldModel, heads: GroupHeads, group: int) -> WorldModel:
    """The world model of a group, as it is opened from a checkpoint."""
    meta = {**model_meta(model), **heads.meta}
    checkpoint = Checkpoint(Path("here"), {"model": heads.state_dict()}, meta, {})
    return model_of(of_tasks(checkpoint, [SUITE.names[GROUPS[group][0]]]), "cpu")


def require_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_changes_of_none_are_hard_sharing_bit_for_bit(q_and_prior):
    """While they are held at none: losses, gradients, random numbers and shared weights."""
    hard, soft = make_model(q_and_prior), make_model(q_and_prior)
    heads = make_heads(soft, "soft")
    for parameter in heads.own:
        parameter.requires_grad_(False)
    torch.manual_seed(1)
    curve = train(make_learner(hard, None))
    torch.manual_seed(1)
    for found, wanted in zip(train(make_learner(soft, heads)), curve, strict=True):
        assert float(found.pop("penalty")) == 0
        require_equal(found, wanted)
    require_equal(opened(soft, heads, 1).state_dict(), hard.state_dict())


def test_one_branch_is_hard_sharing_bit_for_bit():
    hard, branched = make_model(), make_model()
    heads = make_heads(branched, "branches", [[0, 1, 2]])
    for found, wanted in zip(
        train(make_learner(branched, heads)), train(make_learner(hard, None)), strict=True
    ):
        require_equal(found, wanted)
    require_equal(opened(branched, heads, 0).state_dict(), hard.state_dict())


def test_branches_begin_as_one_head():
    hard, branched = make_model(), make_model()
    heads = make_heads(branched, "branches")
    for group in range(2):
        require_equal(opened(branched, heads, group).state_dict(), hard.state_dict())
    found, wanted = train(make_learner(branched, heads), 1), train(make_learner(hard, None), 1)
    for name in ("reward_loss", "consistency_loss"):  # of products of fewer rows at once
        torch.testing.assert_close(found[0][name], wanted[0][name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("sharing", WAYS)
def test_a_group_gets_no_gradient_from_the_data_of_another(sharing):
    model = make_model()
    heads = make_heads(model, sharing, penalty=0.0)
    stir(heads)
    learner = make_learner(model, heads)
    batch = make_batch(size=24)
    learner._gradients(batch.part((batch.task == 1).nonzero().squeeze(1)), None)
    if sharing == "soft":
        other, own = ([p.grad[group] for p in heads.own] for group in range(2))
    else:
        nets = (model.reward_head.of_group, model.dynamics.of_group)
        other, own = ([p.grad for net in nets for p in net[g].parameters()] for g in range(2))
    assert all(grad.count_nonzero() == 0 for grad in other)
    assert all(grad.count_nonzero() > 0 for grad in own)


@pytest.mark.parametrize("sharing", WAYS)
@pytest.mark.parametrize("kind", ["eager", "fused", "bfloat16"])
def test_a_model_that_is_opened_computes_what_was_trained(sharing, kind):
    """And compiled layers, and bfloat16, what eager ones do; also where a group has no window."""
    model = make_model().eval()
    heads = make_heads(model, sharing)
    stir(heads)
    accelerator = Accelerator(CPU.device, bfloat16=kind == "bfloat16", fused=kind == "fused")
    batch = make_batch()
    for group, tasks in enumerate(GROUPS):
        alone = opened(model, heads, group)
        rows = torch.isin(batch.task, torch.tensor(tasks)).nonzero().squeeze(1)
        part = batch.part(rows)
        with accelerator.arithmetic():
            found = make_learner(model, heads, accelerator)._loss(part, None)
        wanted = make_learner(alone, None)._loss(part, None)
        tolerance = 3e-2 if kind == "bfloat16" else 1e-5
        for name, value in wanted[1].items():
            torch.testing.assert_close(found[1][name], value, rtol=tolerance, atol=tolerance)


def test_the_penalty_is_the_mean_squared_distance_and_draws_towards_the_shared_weights():
    model = make_model()
    heads = make_heads(model, "soft", penalty=0.5)
    stir(heads)
    shared = {name: value for name, value in heads.state_dict().items() if name.endswith("weight")}
    distances = []
    for group in range(2):
        state = opened(model, heads, group).state_dict()
        distances.append(sum((state[n] - w).square().sum() for n, w in shared.items()))
    penalty = heads.penalty()
    torch.testing.assert_close(penalty, 0.5 * torch.stack(distances).mean())
    before = penalty / 0.5
    after = {}
    for weight in (0.0, 10.0):
        model = make_model()
        heads = make_heads(model, "soft", penalty=weight)
        torch.manual_seed(2)
        stir(heads)
        curve = train(make_learner(model, heads, lr=1e-2), 20)
        assert ("penalty" in curve[0]) and float(curve[0]["penalty"]) >= 0
        after[weight] = sum(delta.squared_norms().mean() for delta in heads._deltas.values())
    assert after[10.0] < 0.5 * after[0.0] and after[10.0] < before


def gradients(learner: WorldModelLearner) -> dict[str, Tensor]:
    """Those of the first update, before any head has moved."""
    train(learner, 1)
    return {name: p.grad for name, p in learner.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("sharing", WAYS)
def test_weights_of_tasks_learn_what_they_do_with_hard_sharing(sharing):
    hard, model = make_model(), make_model()
    heads = make_heads(model, sharing)
    found = gradients(make_learner(model, heads, balance="gradnorm"))
    for name, grad in gradients(make_learner(hard, None, balance="gradnorm")).items():
        if name.startswith("encoder"):
            torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-6)


def test_gradients_of_branches_are_not_aggregated_but_added_up():
    hard, model = make_model(), make_model()
    heads = make_heads(model, "branches")
    found = gradients(make_learner(model, heads, aggregate="upgrad", grad_clip=1e9))
    for name, grad in gradients(make_learner(hard, None, grad_clip=1e9)).items():
        head, _, layer = name.partition(".")
        if head in ("reward_head", "dynamics"):
            total = sum(found[f"{head}.of_group.{group}.{layer}"] for group in range(2))
            torch.testing.assert_close(total, grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sharing", WAYS)
def test_two_passes_do_what_one_does(sharing):
    states = []
    for passes in (1, 2):
        model = make_model()
        heads = make_heads(model, sharing)
        discount = torch.tensor([task.discount for task in SUITE])
        learner = ParallelLearner(model, CONFIG, discount, CPU, Ranks(), passes, 0, heads)
        train(learner, 3)
        states.append(heads.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory) -> Path:
    """A finished run of each way; not to be written into."""
    directory = tmp_path_factory.mktemp("sharing")
    for name, words in WAYS.items():
        assert main(toy.pretrain(directory / name, *words, "q_and_prior=true")) == 0
    return directory


@pytest.mark.parametrize("sharing", WAYS)
def test_a_run_goes_on_to_the_same_bits(sharing, toy, runs, tmp_path, capsys):
    words = toy.pretrain(tmp_path / "out", *WAYS[sharing], "q_and_prior=true")
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, WorldModelLearner, "update", terminate, 5)
        assert main(words) == 143
    assert main(words) == 0
    ours, theirs = (
        load_checkpoint(list_steps(run / "checkpoints")[-1], KIND).tensors
        for run in (tmp_path / "out", runs / sharing)
    )
    assert ours.keys() == theirs.keys()
    for group, tensors in theirs.items():
        require_equal(ours[group], tensors)
    assert {"step", "steps", "tasks"} == json.loads(
        (runs / sharing / "diagnostics.json").read_bytes()
    ).keys()
    file = tmp_path / "groups.json"
    file.write_text(json.dumps({"groups": [list(toy.tasks)]}))
    capsys.readouterr()
    other = [word for word in words if not word.startswith("groups=")]
    assert main([*other, f"groups={file}"]) == 1
    assert "groups" in capsys.readouterr().err


@pytest.mark.parametrize("sharing", WAYS)
def test_it_is_opened_as_several_world_models(sharing, toy, runs):
    models = load_world_models(runs / sharing)
    assert models.suite.names == toy.tasks
    assert models.models[0].encoder is models.models[1].encoder
    for name in toy.tasks:
        model = load_world_model(runs / sharing, tasks=[name])
        require_equal(model.state_dict(), models.of(name).state_dict())
    first, second = (models.of(name).reward_head.state_dict() for name in toy.tasks)
    assert not torch.equal(first["2.weight"], second["2.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("sharing", WAYS)
def test_extraction_is_that_from_each_groups_world_model(sharing, toy, runs, tmp_path):
    """With changes of shared layers all tasks are one batch, which rounds in another way."""
    fewer = ["learner.iterations=2", "log_every=2"]
    assert main(toy.extract(runs / sharing, tmp_path / "all", *fewer)) == 0
    plans = json.loads((tmp_path / "all" / "groups" / "plan.json").read_bytes())
    assert len(plans) == (1 if sharing == "soft" else 2)
    name = toy.tasks[1]
    model = load_world_model(runs / sharing, tasks=[name])
    save_checkpoint(tmp_path / "plain", KIND, {"model": model.state_dict()}, model_meta(model))
    assert main(toy.extract(tmp_path / "plain", tmp_path / "one", f"tasks={name}", *fewer)) == 0
    found, wanted = (load_policy(tmp_path / which / name).state_dict() for which in ("all", "one"))
    assert found.keys() == wanted.keys()
    for tensor_name, tensor in wanted.items():
        exact = {"rtol": 0, "atol": 0} if "actor" not in tensor_name else {}
        torch.testing.assert_close(found[tensor_name], tensor, **exact, msg=tensor_name)


def test_what_takes_one_world_model_asks_for_tasks_of_one_group(toy, runs, tmp_path):
    path = str(runs / "soft")
    analysis = AnalyzeConfig(path, str(toy.data), str(tmp_path / "a"), device="cpu")
    pushed, exported = (
        partial(gather, Path(path), tmp_path / "b"),
        ExportConfig(path, str(tmp_path / "c.pt")),
    )
    for call in (partial(analyze, analysis), pushed, partial(export_checkpoint, exported)):
        with pytest.raises(PwmError, match=r"2 groups of tasks, .* \(reacher-easy; pendulum"):
            call()
    words = toy.pretrain(tmp_path / "d", f"init={path}", "steps=1")
    assert main(words) == 1
    assert main([*words, f"suite={toy.tasks[1]}"]) == 0


def test_lora_is_not_based_on_it(toy, runs, tmp_path, capsys):
    words = ["finetune=lora", "target=reacher-easy", "suite=reacher-easy"]
    assert main(toy.pretrain(tmp_path / "out", f"init={runs / 'soft'}", *words)) == 1
    assert "weights differ by group of tasks" in " ".join(capsys.readouterr().err.split())


def test_it_begins_with_a_world_model(toy, toy_world_model, tmp_path):
    words = ["sharing=branches", "groups=2", f"init={toy_world_model}", "steps=1", "lr=0"]
    assert main(toy.pretrain(tmp_path / "out", *words, "lr_final=0")) == 0
    for name in toy.tasks:
        found = load_world_model(tmp_path / "out", tasks=[name]).state_dict()
        require_equal(found, load_world_model(toy_world_model).state_dict())


@pytest.mark.parametrize("sharing", WAYS)
def test_it_goes_on_from_heads_of_the_same_groups(sharing, toy, runs, tmp_path, capsys):
    words = [f"init={runs / sharing}", "steps=1", "lr=0", "lr_final=0", "heads.penalty=0"]
    again = toy.pretrain(tmp_path / "out", *WAYS[sharing], *words)
    assert main(again) == 0
    for name in toy.tasks:
        found, wanted = (
            load_world_model(path, tasks=[name]).state_dict()
            for path in (tmp_path / "out", runs / sharing)
        )
        moving = {n for n in found if n.startswith("q_target")}  # towards Q, whatever lr is
        require_equal(*({n: x for n, x in s.items() if n not in moving} for s in (found, wanted)))
    other = {"soft": "heads.rank=2", "branches": "heads.dynamics=false"}[sharing]
    assert main(toy.pretrain(tmp_path / "b", *WAYS[sharing], *words, other)) == 1
    assert "in another way" in " ".join(capsys.readouterr().err.split())
    assert main([*again, "sampling.surprise=1", f"out={tmp_path / 'c'}"]) == 1
    assert "leave it out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sharing": "branches"}, "needs groups="),
        ({"sharing": "firm"}, "unknown sharing 'firm'"),
        ({"sharing": "soft", "parallel": "fsdp"}, "parallel=ddp"),
        ({"sharing": "soft", "init": "it", "finetune": "full", "target": "a"}, "leave one"),
        ({"sharing": "soft", "heads": HeadSharing(rank=0)}, "heads.rank"),
        ({"sharing": "soft", "heads": HeadSharing(penalty=-1.0)}, "heads.penalty"),
    ],
)
def test_mistakes_are_one_sentence(settings, sentence, toy, tmp_path):
    config = PretrainConfig(data=str(toy.data), out=str(tmp_path / "out"), **settings)
    with pytest.raises(PwmError, match=sentence):
        config.validate()


def test_a_checkpoint_without_groups_is_taken_as_it_is(toy, toy_world_model):
    found = find_world_model(toy_world_model)
    assert of_tasks(found, toy.tasks) is found
    require_equal(on_its_base(found, find_world_model).tensors["model"], found.tensors["model"])
