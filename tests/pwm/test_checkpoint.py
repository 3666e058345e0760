from __future__ import annotations

import json
import os
import shutil

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pwm.files
from pwm.checkpoint import (
    is_checkpoint,
    list_steps,
    load_checkpoint,
    load_latest,
    load_optimizer_tensors,
    optimizer_tensors,
    prune_steps,
    read_meta,
    save_checkpoint,
    step_name,
)
from pwm.errors import PwmError

META = {"step": 3, "name": "né", "nested": {"list": [1, 2.5, None, True]}}


def tensors(fill: float = 1.0):
    return {
        "weights": {"a": torch.full((3, 2), fill), "b": torch.arange(4)},
        "random": {"state": torch.arange(5, dtype=torch.uint8), "scalar": torch.tensor(fill)},
    }


def save(path, fill: float = 1.0, **meta):
    save_checkpoint(path, "thing", tensors(fill), {**META, **meta})
    return path


def content(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoint") / "saved")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def assert_refused(path, words: str = "") -> None:
    """One sentence, whatever is wrong."""
    with pytest.raises(PwmError) as caught:
        load_checkpoint(path, "thing")
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert str(path) in message


def test_round_trip(saved):
    checkpoint = load_checkpoint(saved, "thing")
    assert checkpoint.meta == META
    assert checkpoint.path == saved
    wanted = tensors()
    assert checkpoint.tensors.keys() == wanted.keys()
    for group, items in wanted.items():
        assert checkpoint.tensors[group].keys() == items.keys()
        for name, tensor in items.items():
            found = checkpoint.tensors[group][name]
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)
    assert read_meta(saved, "thing") == META


def test_views_and_non_contiguous_tensors_are_stored_whole(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    group = {"transposed": base.T, "row": base[1], "expanded": base[0].expand(2, 4)}
    save_checkpoint(tmp_path / "c", "thing", {"g": group}, {})
    loaded = load_checkpoint(tmp_path / "c", "thing").tensors["g"]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in group.items())


def test_equal_content_gives_equal_bytes(saved, tmp_path):
    assert content(save(tmp_path / "again")) == content(saved)
    assert content(save(tmp_path / "other", fill=2.0)) != content(saved)


def test_groups_can_be_read_apart(saved):
    checkpoint = load_checkpoint(saved, "thing", groups=("random",))
    assert set(checkpoint.tensors) == {"random"}
    with pytest.raises(PwmError, match="no tensors named nothing"):
        load_checkpoint(saved, "thing", groups=("nothing",))


def test_files_open_in_plain_safetensors(saved):
    (file,) = saved.glob("weights*.safetensors")
    assert torch.equal(safetensors.torch.load_file(file)["a"], torch.ones(3, 2))


def test_replacing_leaves_the_new_one_alone(tmp_path):
    path = save(tmp_path / "c")
    save(path, fill=2.0, step=4)
    checkpoint = load_checkpoint(path, "thing")
    assert checkpoint.meta["step"] == 4
    assert checkpoint.tensors["weights"]["a"].eq(2).all()
    assert len(content(path)) == 3
    assert sorted(tmp_path.iterdir()) == [path]


class Killed(BaseException):
    """Stands for the process being killed."""


@pytest.mark.parametrize("call", range(1, 28))
def test_a_crash_at_any_step_leaves_the_old_or_the_new_one(call, tmp_path, monkeypatch):
    """Every call that changes the disk is made to die in turn, before or after it acts."""
    path = save(tmp_path / "c")
    calls = 0

    def dying(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            result = function(*args, **kwargs)
            calls += 1
            if calls == call:
                raise Killed
            return result

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "rmdir", "fsync"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            save(path, fill=2.0, step=4)
            crashed = False
        except Killed:
            crashed = True
    assert crashed or calls < call
    checkpoint = load_checkpoint(path, "thing")
    assert checkpoint.tensors["weights"]["a"].eq(1.0 if checkpoint.meta["step"] == 3 else 2.0).all()
    save(path, fill=3.0, step=5)  # whatever the crash left behind does not disturb the next writer
    assert load_checkpoint(path, "thing").meta["step"] == 5
    assert len(content(path)) == 3


def test_a_half_written_file_is_not_taken_for_the_old_one(tmp_path, monkeypatch):
    path = save(tmp_path / "c")
    whole = os.fsync

    def torn(fd):
        os.ftruncate(fd, 5)
        whole(fd)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pwm.files.os, "fsync", torn)
        with pytest.raises(Killed):
            save(path, fill=2.0)
        with pytest.raises(Killed):
            save(path, fill=1.0)  # the same names as those on disk
    assert load_checkpoint(path, "thing").tensors["weights"]["a"].eq(1).all()


def test_a_first_save_that_dies_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(pwm.files.os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        save(tmp_path / "c")
    assert not is_checkpoint(tmp_path / "c")
    assert_refused(tmp_path / "c", "not a checkpoint")


# --- damage --------------------------------------------------------------------------------------


def same_json(a: bytes, b: bytes) -> bool:
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


@settings(max_examples=150)
@given(data=st.data())
def test_any_flipped_bit_is_noticed(saved, tmp_path_factory, data):
    path = shutil.copytree(saved, tmp_path_factory.mktemp("flip") / "c")
    name = data.draw(st.sampled_from(sorted(content(saved))))
    raw = bytearray((path / name).read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    (path / name).write_bytes(raw)
    if name == "checkpoint.json" and same_json(raw, (saved / name).read_bytes()):
        # White space between tokens means nothing.
        assert load_checkpoint(path, "thing").meta == META
    else:
        assert_refused(path)


@settings(max_examples=60)
@given(data=st.data())
def test_any_truncation_is_noticed(saved, tmp_path_factory, data):
    path = shutil.copytree(saved, tmp_path_factory.mktemp("cut") / "c")
    name = data.draw(st.sampled_from(sorted(content(saved))))
    raw = (path / name).read_bytes()
    (path / name).write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    assert_refused(path)


@settings(max_examples=60)
@given(raw=st.binary(max_size=80))
def test_any_bytes_as_index_are_refused(saved, tmp_path_factory, raw):
    path = shutil.copytree(saved, tmp_path_factory.mktemp("bytes") / "c")
    (path / "checkpoint.json").write_bytes(raw)
    assert_refused(path)


@pytest.mark.parametrize(
    "text", ["null", "3", "[]", '"x"', "{}", "[" * 100_000, '{"format": 1}', '{"meta": 5}']
)
def test_other_json_as_index_is_refused(copy, text):
    (copy / "checkpoint.json").write_text(text)
    assert_refused(copy, "damaged")


def test_a_missing_tensor_file_is_refused(copy):
    next(copy.glob("random*")).unlink()
    assert_refused(copy, "missing")
    assert load_checkpoint(copy, "thing", groups=("weights",)).meta == META


def test_swapped_tensor_files_are_refused(copy):
    first, second = sorted(copy.glob("*.safetensors"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert_refused(copy, "checksum")


def test_files_that_are_not_listed_do_not_matter(copy):
    (copy / "notes.txt").write_text("mine")
    (copy / "extra.safetensors").write_bytes(b"junk")
    assert load_checkpoint(copy, "thing").meta == META


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"files": []},
        {"files": {"../weights.safetensors": "0" * 64}},
        {"files": {"weights.pt": "0" * 64}},
        {"files": {"extra.safetensors": "0" * 64}},
        {"meta": []},
        {"another": 1},
    ],
)
def test_an_edited_index_is_refused(copy, change):
    index = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(json.dumps({**index, **change}))
    assert_refused(copy)


def test_a_newer_format_says_so(copy):
    index = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(json.dumps({**index, "format": 2}))
    assert_refused(copy, "format 2")


def test_foreign_directories_and_files_are_refused(tmp_path):
    assert_refused(tmp_path / "nothing", "not a checkpoint")
    (tmp_path / "file").write_text("x")
    assert_refused(tmp_path / "file", "not a checkpoint")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "not a checkpoint")


def test_another_kind_is_refused(saved):
    with pytest.raises(PwmError, match="holds a thing checkpoint, expected a policy one"):
        load_checkpoint(saved, "policy")
    with pytest.raises(PwmError, match="expected a policy one"):
        read_meta(saved, "policy")


# --- a training run's checkpoints ----------------------------------------------------------------


def test_steps_are_listed_in_order_and_pruned(tmp_path):
    for step in (9, 100, 20, 1_000_000):
        save(tmp_path / step_name(step), step=step)
    (tmp_path / "step_000000050").mkdir()  # a first save that was killed
    assert [read_meta(p, "thing")["step"] for p in list_steps(tmp_path)] == [9, 20, 100, 1_000_000]
    prune_steps(tmp_path, keep_last=2)
    assert [read_meta(p, "thing")["step"] for p in list_steps(tmp_path)] == [100, 1_000_000]
    prune_steps(tmp_path, keep_last=0)  # the newest is never deleted
    assert len(list_steps(tmp_path)) == 1


def test_latest_falls_back_past_damage_and_says_so(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path / step_name(step), step=step)
    next((tmp_path / step_name(3)).glob("weights*")).write_bytes(b"torn")
    (tmp_path / step_name(2) / "checkpoint.json").write_text("{")
    warnings: list[str] = []
    checkpoint = load_latest(tmp_path, "thing", warnings.append)
    assert checkpoint is not None
    assert checkpoint.meta["step"] == 1
    assert len(warnings) == 2
    assert step_name(3) in warnings[0]
    assert load_latest(tmp_path / "none", "thing") is None


# --- optimizers ----------------------------------------------------------------------------------


def test_optimizer_state_round_trip():
    def make():
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.randn(2, 2))]
        return weights, torch.optim.Adam(weights, lr=0.1, fused=True)

    def step(weights, optimizer, factor):
        for weight in weights:
            weight.grad = factor * torch.ones_like(weight)
        optimizer.step()

    weights, optimizer = make()
    step(weights, optimizer, 1.0)
    stored = {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
    assert set(stored) == {f"{i}.{n}" for i in (0, 1) for n in ("step", "exp_avg", "exp_avg_sq")}
    again, other = make()
    step(again, other, 1.0)
    other.state.clear()
    load_optimizer_tensors(other, stored)
    other.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] = 0.01
    step(weights, optimizer, -2.0)
    step(again, other, -2.0)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
