from __future__ import annotations

from contextlib import suppress

import pytest

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, replacing, write_atomically


def test_what_is_written_counts_only_when_all_of_it_is(tmp_path):
    file = tmp_path / "a"
    write_atomically(file, b"old")
    with suppress(ValueError), replacing(file) as opened:
        opened.write(b"half")
        raise ValueError
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    with replacing(file) as opened:
        opened.write(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_in_the_place_of_the_temporary_file_is_not_written_through(tmp_path):
    """A directory from elsewhere could otherwise have any file overwritten."""
    (tmp_path / "mine").write_bytes(b"precious")
    for name in ("a.tmp", "b"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    for name in ("a", "b"):
        write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_other_errors_than_of_writing_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="of another kind"), replacing(tmp_path / "a"):
        raise RuntimeError("of another kind")


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PwmError, match=r"cannot write .*file .File exists.: give a directory"):
        make_directory(tmp_path / "file" / "below")
