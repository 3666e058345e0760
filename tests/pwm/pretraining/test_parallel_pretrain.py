"""Pretraining by two real processes, which talk through gloo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rank_session import run_by_ranks
from torchrun import torchrun

from pwm.cli.main import main
from pwm.models.world_model import load_world_model
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.training_checkpoints import list_steps

pytestmark = pytest.mark.timeout(900)  # nearly all of it in the first test, which makes the runs

STEPS, SAVED = 6, 4  # updates, and those of the checkpoint before the last; horizons grow between
WITH_Q = (
    "q_and_prior=true", "model.num_q=3", "model.dropout=0", f"steps={STEPS}", "keep_last=9",
    "save_every=2",
)  # fmt: skip
BFLOAT16_TOLERANCE = 2e-2  # some digits of its losses, and where roundings of weights differ
IN_BFLOAT16 = (*WITH_Q, "precision=bfloat16")


BALANCED = {
    "gradnorm": [*WITH_Q, "balance=gradnorm", "steps=4"],
    "aggregated": ["balance=dwa", "balancing.period=1", "aggregate=upgrad", "steps=4"],
}
SHARING = {
    "soft": ["sharing=soft", "steps=4"],
    "branches": ["sharing=branches", "groups=2", "steps=4"],
}
GROUPED = ["groups=2", "steps=4"]


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_curves(ours: Path, theirs: Path, tolerance: float = 1e-5) -> None:
    """All that is logged of every update, relative to its size where that is above 1.

    The order in which ranks' gradients are summed shows more in a norm of all of them.
    """
    a, b = metrics(ours), metrics(theirs)
    assert [line["step"] for line in a] == [line["step"] for line in b]
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            allowed = 2 * tolerance if name.endswith("grad_norm") else tolerance
            assert one[name] == pytest.approx(other[name], rel=allowed, abs=allowed), name


def final_tensors(run: Path) -> dict[str, torch.Tensor]:
    groups = load_checkpoint(list_steps(run / "checkpoints")[-1], "world_model").tensors
    return {f"{g}/{name}": tensor for g, items in groups.items() for name, tensor in items.items()}


def assert_same_state(ours: Path, theirs: Path) -> None:
    a, b = final_tensors(ours), final_tensors(theirs)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


def keep_until_saved(run: Path, copy: Path) -> Path:
    """A copy of a finished run as one that was killed after its last checkpoint but one."""
    shutil.copytree(run, copy)
    for path in list_steps(copy / "checkpoints"):
        if path.name > f"step_{SAVED:09d}":
            shutil.rmtree(path)
    assert list_steps(copy / "checkpoints")[-1].name == f"step_{SAVED:09d}"
    return copy


@pytest.fixture(scope="module")
def plain(toy, tmp_path_factory) -> Path:
    """Runs of one process, each a directory."""
    directory = tmp_path_factory.mktemp("plain")
    assert main(toy.pretrain(directory / "with_q", *WITH_Q)) == 0
    assert main(toy.pretrain(directory / "bfloat16", *IN_BFLOAT16, "accumulate=2")) == 0
    for name, words in BALANCED.items():
        assert main(toy.pretrain(directory / name, *words)) == 0
    assert main(toy.pretrain(directory / "begun", *WITH_Q, "lr=0", "lr_final=0", "steps=1")) == 0
    return directory


@pytest.fixture(scope="module")
def by_ranks(toy, plain, tmp_path_factory) -> Path:
    """Runs of two ranks, each a directory."""
    directory = tmp_path_factory.mktemp("by_ranks")
    keep_until_saved(plain / "with_q", directory / "fsdp_begun_by_one")
    runs = {
        "ddp_with_q": [*WITH_Q],
        "fsdp_with_q": [*WITH_Q, "parallel=fsdp"],
        "fsdp_begun_by_one": [*WITH_Q, "parallel=fsdp"],
        "ddp_bfloat16": [*IN_BFLOAT16],
        "begun": [*WITH_Q, "lr=0", "lr_final=0", "steps=1", "parallel=fsdp"],
        **BALANCED,
    }
    mistakes = {
        "indivisible": ["batch_size=6", "accumulate=2"],
        "unknown_setting": ["stepz=5"],
        "no_number": ["steps=many"],
        "unknown_parallel": ["parallel=fspd"],
    }
    commands = [toy.pretrain(directory / name, *words) for name, words in (runs | mistakes).items()]
    codes, errors = run_by_ranks(commands, directory)
    (directory / "errors.txt").write_text(errors)
    assert codes == [[0, 0]] * len(runs) + [[1, 1]] * len(mistakes), errors
    return directory


@pytest.mark.parametrize("name", ["ddp_with_q", "fsdp_with_q"])
def test_two_ranks_follow_one_rank_with_twice_the_batch(name, plain, by_ranks):
    """With Q and prior too, whose random numbers, running scale and target are of the whole."""
    assert len(metrics(plain / "with_q")) == STEPS
    assert {"q_scale", "prior_grad_norm"} <= set(metrics(by_ranks / name)[0])
    assert_same_curves(by_ranks / name, plain / "with_q")
    assert_same_state(by_ranks / name, plain / "with_q")


@pytest.mark.parametrize("name", BALANCED)
def test_two_ranks_balance_tasks_as_one_does(name, plain, by_ranks):
    last = metrics(by_ranks / name)[-1]
    assert last["reacher-easy/weight"] != last["pendulum-swingup/weight"]
    assert_same_curves(by_ranks / name, plain / name, tolerance=1e-4)
    assert_same_state(by_ranks / name, plain / name)


@pytest.mark.slow
def test_two_ranks_share_heads_and_train_a_world_model_per_group_as_one_does(toy, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    runs = {**SHARING, "grouped": GROUPED}
    for name, words in runs.items():
        assert main(toy.pretrain(one / name, *words)) == 0
    commands = [toy.pretrain(two / name, *words) for name, words in runs.items()]
    codes, errors = run_by_ranks(commands, two)
    assert codes == [[0, 0]] * len(runs), errors
    for name in (*SHARING, "grouped/group_00", "grouped/group_01"):
        assert_same_curves(two / name, one / name, tolerance=1e-4)
        assert_same_state(two / name, one / name)
    ours, theirs = (
        json.loads((run / "grouped" / "diagnostics.json").read_bytes()) for run in (two, one)
    )
    assert ours["tasks"].keys() == theirs["tasks"].keys() and ours["step"] == theirs["step"] == 4


@pytest.mark.slow
def test_the_other_ways_of_two_ranks(toy, plain, tmp_path):
    """Without Q, and what one process began, and bfloat16 with weights that are cast on the way."""
    keep_until_saved(plain / "with_q", tmp_path / "ddp_begun_by_one")
    without_q = [f"steps={STEPS}"]
    runs = {
        "ddp": without_q,
        "fsdp": [*without_q, "parallel=fsdp"],
        "ddp_begun_by_one": [*WITH_Q],
        "ddp_accumulated": [*WITH_Q, "accumulate=2"],
        "fsdp_bfloat16": [*IN_BFLOAT16, "accumulate=2", "parallel=fsdp"],
    }
    assert main(toy.pretrain(tmp_path / "without_q", *without_q)) == 0
    commands = [toy.pretrain(tmp_path / name, *words) for name, words in runs.items()]
    codes, errors = run_by_ranks(commands, tmp_path)
    assert codes == [[0, 0]] * len(runs), errors
    assert_same_curves(tmp_path / "ddp", tmp_path / "without_q")
    assert_same_curves(tmp_path / "fsdp", tmp_path / "without_q")
    assert_same_curves(tmp_path / "ddp_begun_by_one", plain / "with_q")
    assert_same_state(tmp_path / "ddp_begun_by_one", plain / "with_q")
    assert_same_curves(tmp_path / "ddp_accumulated", plain / "with_q")
    assert_same_curves(tmp_path / "fsdp_bfloat16", plain / "bfloat16", BFLOAT16_TOLERANCE)


def test_data_parallel_ranks_in_bfloat16_do_what_one_does_bit_for_bit(plain, by_ranks):
    """One that goes through the same parts of the batch one after the other."""
    assert_same_curves(by_ranks / "ddp_bfloat16", plain / "bfloat16")
    ours, theirs = final_tensors(by_ranks / "ddp_bfloat16"), final_tensors(plain / "bfloat16")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metrics(plain / "bfloat16") != metrics(plain / "with_q")


def test_sharded_ranks_begin_with_the_weights_of_one_process(plain, by_ranks):
    """Though only the main rank has built the model; the random stream goes on alike, too."""
    ours, theirs = final_tensors(by_ranks / "begun"), final_tensors(plain / "begun")
    assert ours.keys() == theirs.keys()
    same = [name for name in ours if torch.equal(ours[name], theirs[name])]
    assert {name for name in ours if name.startswith("model/")} <= set(same)
    assert "random/cpu" in same


def test_what_one_process_began_ranks_finish(plain, by_ranks):
    assert_same_curves(by_ranks / "fsdp_begun_by_one", plain / "with_q")
    assert_same_state(by_ranks / "fsdp_begun_by_one", plain / "with_q")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_what_ranks_began_one_process_finishes(parallel, toy, plain, by_ranks, tmp_path):
    run = keep_until_saved(by_ranks / f"{parallel}_with_q", tmp_path / "run")
    (half,) = list_steps(run / "checkpoints")[-1:]
    shards = list(half.glob("shard-*.safetensors"))
    assert len(shards) == (2 if parallel == "fsdp" else 0)
    load_world_model(run)
    assert main(toy.pretrain(run, *WITH_Q)) == 0
    assert_same_curves(run, plain / "with_q")
    assert_same_state(run, plain / "with_q")


@pytest.mark.parametrize("how", ["torn", "missing", "extra"])
def test_a_damaged_shard_is_found_and_the_checkpoint_before_taken(
    how, toy, plain, by_ranks, tmp_path, capsys
):
    run = keep_until_saved(by_ranks / "fsdp_with_q", tmp_path / "run")
    shard = sorted(list_steps(run / "checkpoints")[-1].glob("shard-*"))[1]
    if how == "torn":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif how == "missing":
        shard.unlink()
    else:
        shutil.copy(shard, shard.with_name("shard-00003-model-00001-of-00001.safetensors"))
    assert main(toy.pretrain(run, *WITH_Q)) == 0
    assert "Falling back to the one before" in " ".join(capsys.readouterr().err.split())
    assert_same_curves(run, plain / "with_q")


def test_what_is_left_at_the_end_is_one_piece(by_ranks):
    last = list_steps(by_ranks / "fsdp_with_q" / "checkpoints")[-1]
    assert last.name == f"step_{STEPS:09d}"
    assert not list(last.glob("shard-*"))
    assert list(last.glob("model-*.safetensors"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("indivisible", "batch_size=6 must be a multiple of 4, the number of ranks (2) times"),
        ("unknown_setting", "did you mean steps=?"),
        ("no_number", "steps=many"),
        ("unknown_parallel", "did you mean 'fsdp'?"),
    ],
)
def test_a_mistake_is_said_once(name, sentence, by_ranks):
    assert (by_ranks / "errors.txt").read_text().count(sentence) == 1
    assert not (by_ranks / name).exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_one_rank_on_a_gpu_follows_the_plain_loop(parallel, toy, tmp_path):
    words = [*WITH_Q, "device=cuda", "precision=float32", "compile=never"]
    assert main(toy.pretrain(tmp_path / "plain", *words)) == 0
    command = toy.pretrain(tmp_path / "rank", *words, f"parallel={parallel}")
    process = torchrun(["-m", "pwm.cli", *command], ranks=1)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert_same_curves(tmp_path / "rank", tmp_path / "plain", 1e-4)
