"""What scripts/memory.py works out, against models that are really divided and trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from memory import kept_for_backward, memory, table
from roofline import model_on_meta, model_size, random_batch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from pwm.core.suites import get_suite
from pwm.models.world_model import WorldModel
from pwm.pretraining.fsdp import cut_dimension, shard
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.acceleration import Accelerator

SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"


def taken(tensors: Iterable[Tensor]) -> int:
    """Bytes of this rank's parts."""
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


class Parts(nn.Module):
    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part for name, part in model.named_children() if name != "prior")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_docs_show_the_table():
    text = SCALING.read_text()
    for line in table():
        assert line in text, f"remake the table of docs/scaling.md: scripts/memory.py says {line}"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [8, 64])
def test_a_rank_of_a_sharded_1b_holds_what_the_table_says(ranks):
    model = model_on_meta("1B", q_and_prior=True)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        shard(Parts(model), model, init_device_mesh("cpu", (ranks,)))
        target = taken(model.q_target.parameters())
        mine = taken(model.parameters()) - target
    finally:
        dist.destroy_process_group()
    found = memory("1B", ranks, sharded=True, windows=1)
    assert (found.weights, found.target) == (mine, target)
    assert 4 * 977_714_585 / ranks < mine < 1.1 * (4 * 977_714_585 / ranks) + 4 * 66_877_452


@pytest.mark.slow
def test_an_update_holds_what_the_table_says():
    suite = get_suite("mt80")
    model = WorldModel(model_size("1M"), suite, q_and_prior=True)
    discount = torch.full((len(suite),), 0.97)
    learner = WorldModelLearner(model, LearnerConfig(), discount)
    learner.update(random_batch(suite, 2, 4, torch.device("cpu")))
    found = memory("1M", 1, sharded=False, windows=1)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert found.weights == taken(trained)
    assert found.gradients == taken(p.grad for p in trained)
    assert found.target == taken(model.q_target.parameters())
    moments = [
        state[name]
        for optimizer in (learner.optimizer, learner.prior_optimizer)
        for state in optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    ]
    assert found.adam == taken(moments)


@pytest.mark.slow
def test_activations_are_what_autograd_keeps():
    """Counted on real tensors here, with a CPU's kernels on both sides."""
    suite = get_suite("mt80")
    model = WorldModel(model_size("1M"), suite, q_and_prior=True)
    discount = torch.full((len(suite),), 0.97)
    accelerator = Accelerator(torch.device("cpu"), bfloat16=True)
    learner = WorldModelLearner(model, LearnerConfig(), discount, accelerator)
    sizes = {}
    for windows in (8, 16):
        batch = random_batch(suite, 4, windows, torch.device("cpu"))
        saved: dict[int, torch.UntypedStorage] = {}

        def note(tensor: Tensor, saved: dict[int, torch.UntypedStorage] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        noise = learner._noise(batch)
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, accelerator.arithmetic(), pytest.MonkeyPatch.context() as patched:
            patched.setattr("pwm.models.layers.mish", torch.nn.functional.mish)
            loss = learner._loss(batch, noise)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        sizes[windows] = sum(s.nbytes() for key, s in saved.items() if key not in weights)
        del loss
    casts, each = kept_for_backward("1M", 4)
    assert sizes[16] - sizes[8] == pytest.approx(8 * each)
    assert sizes[8] == pytest.approx(casts + 8 * each)


def test_no_stack_is_padded_to_more_than_its_size():
    assert cut_dimension(torch.Size((8, 7168, 2150)), 64) == 1
    assert cut_dimension(torch.Size((8, 101, 7168)), 64) == 2
    assert cut_dimension(torch.Size((5, 512)), 8) == 1
    assert cut_dimension(torch.Size((8, 7168)), 2) == 0
    assert cut_dimension(torch.Size((101,)), 64) == 0
