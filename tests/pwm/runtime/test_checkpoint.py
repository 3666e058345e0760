from __future__ import annotations

import hashlib
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pwm.core.files
from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.versions import versions
from pwm.runtime.checkpoint import (
    is_checkpoint,
    load_checkpoint,
    read_meta,
    save_checkpoint,
    shared_files,
    to_float16,
)
from pwm.runtime.training_checkpoints import (
    list_steps,
    load_latest,
    load_optimizer_tensors,
    optimizer_tensors,
    save_step,
    step_name,
)

SHIPPED = Path(__file__).parents[3] / "checkpoints" / "quick" / "world_model"
META = {"step": 3, "name": "né", "nested": {"list": [1, 2.5, None, True]}}


def tensors(fill: float = 1.0):
    return {
        "weights": {"a": torch.full((3, 2), fill), "b": torch.arange(4)},
        "random": {"state": torch.arange(5, dtype=torch.uint8), "scalar": torch.tensor(fill)},
    }


def save(path, fill: float = 1.0, **meta):
    save_checkpoint(path, "thing", tensors(fill), {**META, **meta})
    return path


def rewrite_index(path, change) -> None:
    """Edit an index and make its checksum fit again."""
    index = json.loads((path / "checkpoint.json").read_text())
    del index["checksum"]
    index = change(index)
    text = json.dumps(index, sort_keys=True)
    index["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "checkpoint.json").write_text(json.dumps(index))


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
        patch.setattr(pwm.core.files.os, "fsync", torn)
        with pytest.raises(Killed):
            save(path, fill=2.0)
        with pytest.raises(Killed):
            save(path, fill=1.0)  # the same names as those on disk
    assert load_checkpoint(path, "thing").tensors["weights"]["a"].eq(1).all()


def test_a_first_save_that_dies_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(pwm.core.files.os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
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


CHANGES = [
    {"kind": 5},
    {"groups": []},
    {"groups": {"weights": {"file": "../weights.safetensors", "sha256": "0" * 64}}},
    {"groups": {"weights": {"file": "/etc/weights.safetensors", "sha256": "0" * 64}}},
    {"groups": {"weights": {"file": "weights.pt", "sha256": "0" * 64}}},
    {"groups": {"weights": {"file": 3, "sha256": "0" * 64}}},
    {"groups": {"weights": {"file": "weights.safetensors"}}},
    {"groups": {"weights": "weights.safetensors"}},
    {"groups": {"extra": {"file": "extra.safetensors", "sha256": "0" * 64}}},
    {"meta": []},
    {"versions": None},
    {"format": None},
    {"format": []},
    {"format": 1},
]


@pytest.mark.parametrize("change", [*CHANGES, {"another": 1}])
def test_an_edited_index_is_refused(copy, change):
    index = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(json.dumps({**index, **change}))
    assert_refused(copy, "checksum differs")


@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_index_whose_checksum_fits_is_refused(copy, change):
    rewrite_index(copy, lambda index: {**index, **change})
    assert_refused(copy)


def test_an_index_without_checksum_is_refused(copy):
    index = json.loads((copy / "checkpoint.json").read_text())
    del index["checksum"]
    (copy / "checkpoint.json").write_text(json.dumps(index))
    assert_refused(copy, "checksum")


# --- formats -------------------------------------------------------------------------------------


def to_format_1(path) -> None:
    """What the first format looked like: groups told by file names, no versions."""

    def change(index):
        files = {entry["file"]: entry["sha256"] for entry in index["groups"].values()}
        return {"format": 1, "kind": index["kind"], "files": files, "meta": index["meta"]}

    rewrite_index(path, change)


def test_the_first_format_is_read(copy, saved):
    to_format_1(copy)
    ours, theirs = load_checkpoint(copy, "thing"), load_checkpoint(saved, "thing")
    assert ours.meta == theirs.meta
    assert ours.versions == {}
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(
        torch.equal(tensor, theirs.tensors[group][name])
        for group, items in ours.tensors.items()
        for name, tensor in items.items()
    )
    save(copy, fill=2.0)
    assert load_checkpoint(copy, "thing").versions == versions()
    assert len(content(copy)) == 3


@pytest.mark.parametrize(
    "files", [{"../weights-0.safetensors": "0" * 64}, {"weights-0.pt": "0" * 64}, ["weights"], None]
)
def test_the_first_format_is_checked_as_well(files, copy):
    to_format_1(copy)
    rewrite_index(copy, lambda index: {**index, "files": files})
    assert_refused(copy, "damaged")


def test_what_shipped_in_the_first_format_still_opens():
    index = json.loads((SHIPPED / "checkpoint.json").read_text())
    assert index["format"] == 1
    assert load_checkpoint(SHIPPED, "world_model").tensors["model"]


def test_a_newer_format_says_so(copy):
    rewrite_index(copy, lambda index: {**index, "format": 5})
    assert_refused(copy, "format 5")


def test_the_versions_that_wrote_it_are_recorded(saved):
    assert load_checkpoint(saved, "thing").versions == versions()
    assert versions()["torch"] == version("torch")  # without "+cu130" where pip knows none


def test_a_group_s_name_may_have_a_dash(tmp_path):
    save_checkpoint(tmp_path, "thing", {"a-b": {"x": torch.ones(2)}}, {})
    assert set(load_checkpoint(tmp_path, "thing").tensors) == {"a-b"}
    to_format_1(tmp_path)
    assert set(load_checkpoint(tmp_path, "thing").tensors) == {"a-b"}


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


def save_at(directory, step: int, keep_last: int = 2) -> None:
    save_step(directory, "thing", step, tensors(), META | {"step": step}, keep_last)


def steps_of(directory) -> list[int]:
    return [read_meta(path, "thing")["step"] for path in list_steps(directory)]


def test_steps_are_listed_in_order_and_the_last_are_kept(tmp_path):
    for step in (9, 20, 100):
        save_at(tmp_path, step, keep_last=3)
    assert steps_of(tmp_path) == [9, 20, 100]
    save_at(tmp_path, 1_000_000)
    assert steps_of(tmp_path) == [100, 1_000_000]
    save_at(tmp_path, 1_000_001, keep_last=0)  # the newest is never deleted
    assert steps_of(tmp_path) == [1_000_001]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    save_at(tmp_path, 10)
    unfinished = tmp_path / step_name(15)
    unfinished.mkdir()
    (unfinished / "weights-0.safetensors.tmp").write_bytes(b"half")
    assert steps_of(tmp_path) == [10]
    save_at(tmp_path, 20)
    assert sorted(p.name for p in tmp_path.iterdir()) == [step_name(10), step_name(20)]


def test_what_a_link_among_the_steps_leads_to_is_left_alone(tmp_path):
    """A run's directory from elsewhere may hold links to anything."""
    elsewhere = save(tmp_path / "elsewhere")
    run = tmp_path / "run"
    save_at(run, 10)
    (run / step_name(5)).symlink_to(elsewhere)
    save_at(run, 20)
    assert sorted(p.name for p in run.iterdir()) == [step_name(10), step_name(20)]
    load_checkpoint(elsewhere, "thing")


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one_and_gives_its_room_back(
    tmp_path, monkeypatch
):
    """The tensors fit, and the index does not."""

    def full(path, data) -> None:
        if path.name == "checkpoint.json":
            raise PwmError("the disk is full")
        write_atomically(path, data)

    path = save(tmp_path / "saved")
    before = {file: file.read_bytes() for file in path.iterdir()}
    monkeypatch.setattr("pwm.runtime.checkpoint_index.write_atomically", full)
    with pytest.raises(PwmError, match="full"):
        save_checkpoint(path, "thing", {"weights": {"w": torch.ones(9)}}, {})
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    with pytest.raises(PwmError, match="full"):
        save_checkpoint(tmp_path / "new", "thing", {"weights": {"w": torch.ones(9)}}, {})
    assert not list((tmp_path / "new").iterdir())


def test_a_checkpoint_that_a_run_fell_back_past_does_not_outlive_new_ones(tmp_path):
    """Kept as the newest, a damaged one would have crowded out the whole one."""
    for step in (10, 20):
        save_at(tmp_path, step)
    next((tmp_path / step_name(20)).glob("weights*")).write_bytes(b"torn")
    assert load_latest(tmp_path, "thing").meta["step"] == 10
    save_at(tmp_path, 13, keep_last=1)
    assert steps_of(tmp_path) == [13]


def test_a_kill_while_old_ones_are_deleted_leaves_no_half_that_looks_whole(tmp_path, monkeypatch):
    for step in (10, 20):
        save_at(tmp_path, step)

    def die(path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(Killed):
            save_at(tmp_path, 30)
    assert steps_of(tmp_path) == [20, 30]
    save_at(tmp_path, 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == [step_name(30), step_name(40)]


def test_latest_falls_back_past_damage_and_says_so(tmp_path):
    for step in (1, 2, 3):
        save_at(tmp_path, step, keep_last=3)
    next((tmp_path / step_name(3)).glob("weights*")).write_bytes(b"torn")
    (tmp_path / step_name(2) / "checkpoint.json").write_text("{")
    warnings: list[str] = []
    checkpoint = load_latest(tmp_path, "thing", warnings.append)
    assert checkpoint is not None
    assert checkpoint.meta["step"] == 1
    assert len(warnings) == 2
    assert step_name(3) in warnings[0]
    assert load_latest(tmp_path / "none", "thing") is None


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew_by_itself(tmp_path):
    save_at(tmp_path, 1)
    (tmp_path / step_name(1) / "checkpoint.json").write_text("{")
    with pytest.raises(PwmError, match="none of the 1 checkpoints"):
        load_latest(tmp_path, "thing")


def test_a_newer_format_or_another_kind_is_not_fallen_back_past(tmp_path):
    for step in (1, 2):
        save_at(tmp_path, step)
    with pytest.raises(PwmError, match="expected a policy"):
        load_latest(tmp_path, "policy")
    rewrite_index(tmp_path / step_name(2), lambda index: {**index, "format": 5})
    with pytest.raises(PwmError, match="format 5"):
        load_latest(tmp_path, "thing")


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


# --- shared groups --------------------------------------------------------------------------------


def test_checkpoints_beside_each_other_share_a_file(tmp_path):
    for name, fill in (("a", 1.0), ("b", 2.0)):
        shared = {"common": {"w": torch.ones(3)}}
        save_checkpoint(tmp_path / name, "thing", {"own": {"x": torch.tensor(fill)}}, {}, shared)
    files = [file.name for file in tmp_path.glob("*.safetensors")]
    assert len(files) == 1
    assert shared_files(tmp_path / "a", "thing") == set(files)
    for name, fill in (("a", 1.0), ("b", 2.0)):
        tensors = load_checkpoint(tmp_path / name, "thing").tensors
        assert tensors["own"]["x"] == fill
        assert (tensors["common"]["w"] == 1).all()
    (tmp_path / files[0]).write_bytes(b"changed")
    with pytest.raises(PwmError, match="checksum differs"):
        load_checkpoint(tmp_path / "a", "thing")


@pytest.mark.parametrize(
    "file", ["../../w.safetensors", "/tmp/w.safetensors", "../x/w.safetensors"]
)
def test_nothing_further_away_is_read(tmp_path, file):
    path = save(tmp_path / "a")

    def change(index):
        index["groups"]["weights"]["file"] = file
        return {**index, "format": 4}

    rewrite_index(path, change)
    with pytest.raises(PwmError, match=r"damaged .*safetensors"):
        load_checkpoint(path, "thing")


def test_only_matrices_whose_values_fit_are_halved():
    given = {
        "a.weight": torch.full((2, 2), 0.1),
        "b.weight": torch.full((2, 2), 1e6),
        "ln.weight": torch.ones(2),
        "obs_mean": torch.ones(2, 2),
    }
    kinds = {name: tensor.dtype for name, tensor in to_float16(given).items()}
    assert kinds.pop("a.weight") == torch.float16
    assert set(kinds.values()) == {torch.float32}
