from __future__ import annotations

import contextlib
import importlib
import io
import os
import pathlib
import pickle
import pickletools
import shutil
import subprocess
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tdmpc2_files import CHECKPOINTS, CHUNK_2023, chunk_fields, make_chunk, rewrite_archive
from tensordict import TensorDict

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES
from pwm.interop.conversion import ConvertConfig
from pwm.interop.convert import convert
from pwm.interop.import_checkpoint import ImportConfig, import_checkpoint
from pwm.interop.pickled_records import numbers, stand_in
from pwm.interop.torch_archive import NAMES, TensorDictRecord, TorchFile


class Evil:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("layout", CHECKPOINTS)
def test_reads_checkpoints_as_torch_does(layout):
    path = CHECKPOINTS[layout]
    file = TorchFile(path)
    expected = torch.load(path, weights_only=True)["model"]
    assert list(file.content["model"]) == list(expected)
    for key, value in file.content["model"].items():
        if value is None or isinstance(value, torch.Size):
            assert value == expected[key]
        else:
            assert value.is_meta == expected[key].is_meta
            assert value.is_meta or torch.equal(value, expected[key])
            assert value.dtype == expected[key].dtype


def test_reads_a_tensordict_of_2023():
    file = TorchFile(CHUNK_2023)
    expected = torch.load(CHUNK_2023, weights_only=False)  # our own file
    assert isinstance(file.content, TensorDictRecord)
    entries = file.content.state["_tensordict"]
    assert set(entries) == {"obs", "action", "reward", "task"}
    for name, stored in entries.items():
        torch.testing.assert_close(stored, expected[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("locked", [False, True])
def test_reads_a_current_tensordict(tmp_path, locked):
    expected = chunk_fields(SUITES["mt30"], [0, 7], 5, seed=1)
    saved = TensorDict(expected, batch_size=(2, 5))
    path = tmp_path / "a.pt"
    torch.save(saved.lock_() if locked else saved, path)
    entries = TorchFile(path).content.state["_tensordict"]
    assert torch.equal(entries["obs"], expected["obs"])


def test_reads_views_parameters_and_compressed_members(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "transposed": base.t(),
        "column": base[:, 1],
        "expanded": base[:1].expand(5, 4),
        "parameter": torch.nn.Parameter(base),
        "none": torch.zeros(0, 4),
        "half": base.half(),
        "integers": torch.arange(3),
    }
    torch.save(saved, tmp_path / "plain.pt")
    packed = rewrite_archive(
        tmp_path / "plain.pt", tmp_path / "packed.pt", lambda _, data: data, zipfile.ZIP_DEFLATED
    )
    for path in (tmp_path / "plain.pt", packed):
        file = TorchFile(path)
        for name, tensor in saved.items():
            assert torch.equal(file.content[name], tensor)


def test_a_tensor_can_be_changed_without_changing_the_file(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(4)}, path)
    before = path.read_bytes()
    file = TorchFile(path)
    file.content["x"].fill_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["alone", "beside the weights", "among the weights"])
def test_a_file_that_would_run_code_runs_none(tmp_path, protocol, place):
    marker = tmp_path / "marker"
    evil = Evil(os.mkdir, str(marker))
    weights = torch.load(CHECKPOINTS["tdmpc2-old"], weights_only=True)
    content = {
        "alone": evil,
        "beside the weights": {**weights, "other": evil},
        "among the weights": {"model": {**weights["model"], "_pi.0.weight": evil}},
    }[place]
    path = tmp_path / "evil.pt"
    torch.save(content, path, pickle_protocol=protocol)
    for read in (
        lambda: TorchFile(path),
        lambda: import_checkpoint(ImportConfig(str(path), "mt30", str(tmp_path / "out"))),
        lambda: convert(ConvertConfig(str(path), str(tmp_path / "out"), "mt30")),
    ):
        with pytest.raises(PwmError, match=r"names 'posix\.mkdir'"):
            read()
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
    torch.load(path, weights_only=False)  # the file does run code where it is let
    assert marker.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, r"builtins\.eval"),
        (getattr, r"builtins\.getattr"),
        (subprocess.Popen, r"subprocess\.Popen"),
        (pathlib.Path, r"pathlib.*\.Path"),
        (shutil.rmtree, r"shutil\.rmtree"),
        (torch.load, r"torch\.serialization\.load"),
        (torch.hub.load, r"torch\.hub\.load"),
        (torch._utils._rebuild_tensor, r"torch\._utils\._rebuild_tensor"),
        (pickle.loads, r"pickle\.loads"),
    ],
)
def test_any_other_name_is_refused_by_name(tmp_path, function, name):
    torch.save({"model": Evil(function, "x")}, tmp_path / "evil.pt")
    with pytest.raises(PwmError, match=name):
        TorchFile(tmp_path / "evil.pt")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_pickle_is_refused_and_what_it_names_is_told(tmp_path, protocol):
    marker, path = tmp_path / "marker", tmp_path / "bare.pt"
    path.write_bytes(pickle.dumps({"model": Evil(os.mkdir, str(marker))}, protocol))
    expected = r"posix\.mkdir" if protocol >= 2 else "no file that torch.save wrote"
    with pytest.raises(PwmError, match=expected):
        TorchFile(path)
    assert not marker.exists()


def test_the_format_before_torch_1_6_is_refused(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"x": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(PwmError, match="as torch wrote before version"):
        TorchFile(path)


def test_a_tar_archive_is_refused(tmp_path):
    path = tmp_path / "old.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO(b""))
    with pytest.raises(PwmError, match="tar archive"):
        TorchFile(path)


def test_a_torchscript_archive_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(PwmError, match="TorchScript"):
        TorchFile(path)


def test_a_zip_of_something_else_and_a_missing_file_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(PwmError, match=r"without data\.pkl"):
        TorchFile(tmp_path / "a.zip")
    with pytest.raises(PwmError, match="there is no file"):
        TorchFile(tmp_path / "none.pt")
    with pytest.raises(PwmError, match="cannot read"):
        TorchFile(tmp_path)


def craft(path, *opcodes: bytes) -> pathlib.Path:
    """An archive whose pickle consists of the given opcodes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"".join(opcodes) + b".")
        archive.writestr("archive/data/0", b"\x00" * 64)
    return path


def test_a_pickle_cannot_change_the_classes_it_is_given(tmp_path):
    before = dict(vars(OrderedDict)), dict(vars(TensorDictRecord))
    name = b"X\x05\x00\x00\x00evil_"
    for global_ in (b"ccollections\nOrderedDict\n", b"ctensordict._td\nTensorDict\n"):
        for state in (b"}" + name + b"K\x01s", b"N}" + name + b"K\x01s\x86"):
            with pytest.raises(PwmError, match="damaged"):
                TorchFile(craft(tmp_path / "evil.pt", global_, state, b"b"))
    assert (dict(vars(OrderedDict)), dict(vars(TensorDictRecord))) == before


def test_an_attribute_of_an_allowed_name_is_refused(tmp_path):
    path = craft(tmp_path / "evil.pt", b"ccollections\nOrderedDict.fromkeys\n")
    with pytest.raises(PwmError, match=r"names 'collections\.OrderedDict\.fromkeys'"):
        TorchFile(path)


def test_names_that_are_allowed_are_those_of_tensors_and_tensordicts(tmp_path):
    known = ("collections.OrderedDict", "builtins.set", "torch.", "tensordict.", "_codecs.encode")
    assert all(name.startswith(known) for name in NAMES)
    before = set(torch.serialization.get_safe_globals())
    TorchFile(CHUNK_2023)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("part", [0, 1, 2, 3, 4])
def test_a_forged_record_of_an_array_has_no_numbers(part):
    reconstruct, dtype = stand_in("numpy.core.multiarray._reconstruct"), stand_in("numpy.dtype")
    state = [1, (2,), dtype("f8", False, True), False, np.arange(2.0).tobytes()]
    good, bad = reconstruct(), reconstruct()
    good.__setstate__(tuple(state))
    np.testing.assert_array_equal(numbers(good), [0.0, 1.0])
    bad.__setstate__(tuple(state[:part]))
    assert numbers(bad) is None
    for wrong in (dtype("O8"), dtype(), "f8", None):
        bad.__setstate__((1, (2,), wrong, False, b"0" * 16))
        assert numbers(bad) is None


def test_a_tensordict_that_is_imported_changes_nothing():
    """It registers its classes with torch.load under the names that files give."""
    importlib.import_module("tensordict")
    assert any("tensordict" in str(entry) for entry in torch.serialization.get_safe_globals())
    assert isinstance(TorchFile(CHUNK_2023).content, TensorDictRecord)


def tensor_file(tmp_path, change=lambda name, data: data):
    torch.save({"x": torch.zeros(3, 4)}, tmp_path / "good.pt")
    return rewrite_archive(tmp_path / "good.pt", tmp_path / "bad.pt", change)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x03K\x04\x86", b"K\x03K\x64\x86"),  # a shape that reaches beyond the storage
        (b"K\x04K\x01\x86", b"M\xff\xffK\x01\x86"),  # a stride that does
        (b"QK\x00", b"QK\x7f"),  # an offset that does
        (b"K\x0ct", b"K\x0bt"),  # a storage smaller than its member
        (b"K\x0ct", b"K\x7ft"),  # a storage larger than its member
        (b"K\x03K\x04\x86", b"NN\x86"),  # a shape of no numbers
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, old, new):
    def change(name, data):
        if name != "data.pkl":
            return data
        plain = pickletools.optimize(data)
        assert plain.count(old) == 1
        return plain.replace(old, new)

    path = tensor_file(tmp_path, change)
    with pytest.raises(PwmError, match="damaged"):
        TorchFile(path)


def test_missing_members_and_foreign_byte_order_are_refused(tmp_path):
    with pytest.raises(PwmError, match=r"damaged: .* data/0: file not found"):
        TorchFile(tensor_file(tmp_path, lambda n, d: None if n == "data/0" else d))
    with pytest.raises(PwmError, match="big-endian"):
        TorchFile(tensor_file(tmp_path, lambda n, d: b"big" if n == "byteorder" else d))


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tensor_file(tmp_path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    with pytest.raises(PwmError, match="two members"):
        TorchFile(path)


def test_truncated_files_are_refused(tmp_path):
    data = CHUNK_2023.read_bytes()
    path = tmp_path / "short.pt"
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(PwmError, match=r"truncated|no file that torch"):
            TorchFile(path)


def read_everything(path) -> None:
    file = TorchFile(path)
    for _ in file.verify():
        pass
    for tensor in file.content.state["_tensordict"].values():
        tensor.sum()


@given(data=st.data())
def test_a_flipped_byte_never_gives_other_numbers(tmp_path_factory, data):
    good = CHUNK_2023.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("flip") / "a.pt"
    path.write_bytes(bytes(bad))
    try:
        read_everything(path)
    except PwmError:
        return
    assert TorchFile(path).fingerprint == TorchFile(CHUNK_2023).fingerprint


@given(st.binary(max_size=200))
def test_garbage_gives_a_sentence(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("garbage") / "a.pt"
    for data in (garbage, b"\x80\x02" + garbage):
        path.write_bytes(data)
        with pytest.raises(PwmError):
            TorchFile(path)


@given(st.binary(min_size=1, max_size=60))
def test_a_garbage_pickle_gives_a_sentence_or_plain_values(tmp_path_factory, garbage):
    path = craft(tmp_path_factory.mktemp("garbage") / "a.pt", garbage)
    with contextlib.suppress(PwmError):
        TorchFile(path)


def test_the_fingerprint_follows_the_content_not_the_name(tmp_path):
    first = make_chunk(tmp_path / "a.pt", SUITES["mt30"], [0], 4, seed=1)
    same = make_chunk(tmp_path / "b.pt", SUITES["mt30"], [0], 4, seed=1)
    other = make_chunk(tmp_path / "c.pt", SUITES["mt30"], [0], 4, seed=2)
    assert TorchFile(first).fingerprint == TorchFile(same).fingerprint
    assert TorchFile(first).fingerprint != TorchFile(other).fingerprint
