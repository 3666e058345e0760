from __future__ import annotations

import os
import time

import numpy as np
import pytest

from pwm.data.problems import DataError
from pwm.data.record_file import RecordFile

DTYPE = np.dtype([("a", "<i4"), ("b", "<f4")])


@pytest.fixture
def path(tmp_path):
    records = np.zeros(5000, DTYPE)
    records["a"] = np.arange(5000)
    records.tofile(tmp_path / "rows.bin")
    os.utime(tmp_path / "rows.bin", ns=(0, 0))
    return tmp_path / "rows.bin"


def overwrite(path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_records_are_read_as_they_are(path):
    file = RecordFile(path, "small", DTYPE, 5000)
    assert file.nbytes == 40_000
    assert file.read()["a"].tolist() == list(range(5000))
    assert file.read(10, 13)["a"].tolist() == [10, 11, 12]
    assert len(file.read(7, 7)) == 0


def test_a_file_of_no_records_need_not_be_there(tmp_path):
    file = RecordFile(tmp_path / "none", "small", DTYPE, 0)
    assert len(file.read()) == 0
    assert file.fault() is None


def test_what_cannot_be_opened_is_named(path, tmp_path):
    for name, message in (("none", "cannot be opened"), (".", "no plain file")):
        with pytest.raises(DataError, match=f"{tmp_path / name}.* task small: .*{message}"):
            RecordFile(tmp_path / name, "small", DTYPE, 1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no plain file"):
        RecordFile(tmp_path / "pipe", "small", DTYPE, 1)
    with pytest.raises(DataError, match=r"truncated: it has 40000 bytes .* commits 40008"):
        RecordFile(path, "small", DTYPE, 5001)


def test_a_file_truncated_after_it_was_opened_is_refused(path):
    file = RecordFile(path, "small", DTYPE, 5000)
    os.truncate(path, 100)
    for start, stop in ((0, 5), (10, 20), (4000, 5000)):
        with pytest.raises(DataError, match="truncated: it has 100 bytes"):
            file.read(start, stop)
    os.truncate(path, 40_000)  # the size is right again, the zeros are not
    with pytest.raises(DataError, match="changed while it was being read"):
        file.read(4000, 5000)


def test_a_changed_byte_is_refused(path):
    file = RecordFile(path, "small", DTYPE, 5000)
    overwrite(path, 16_001, b"x")
    with pytest.raises(DataError, match="changed while it was being read"):
        file.read(0, 5)


def test_what_others_append_is_no_change(path):
    with open(path, "ab") as writer:
        writer.write(b"left behind by a killed writer")
    file = RecordFile(path, "small", DTYPE, 5000)
    os.truncate(path, 40_000)
    assert file.read(4999, 5000)["a"] == [4999]
    for _ in range(3):
        time.sleep(0.01)
        with open(path, "ab") as writer:
            writer.write(bytes(1000))
        assert file.read(4999, 5000)["a"] == [4999]
    overwrite(path, 0, bytes(DTYPE.itemsize) + b"other")
    with pytest.raises(DataError, match="changed"):
        file.read(4999, 5000)


def test_a_deleted_or_replaced_file_is_read_on_as_it_was(path):
    file = RecordFile(path, "small", DTYPE, 5000)
    path.unlink()
    assert file.read(3, 4)["a"] == [3]
    np.ones(5000, DTYPE).tofile(path)
    assert file.read(3, 4)["a"] == [3]
