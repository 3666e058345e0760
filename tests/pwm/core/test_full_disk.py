"""A disk that runs full under some commands; all of them are among the slow tests."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import full_disk
import numpy as np
import pytest
from forked import result_of_fork
from mounted_disk import enter_namespace, mount, require_mounting
from samples import make_results

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.evaluation.videos import write_video

ROOT = Path(__file__).parents[3]


def filled(case: full_disk.Case, directory: Path, seed: int) -> full_disk.Tally:
    enter_namespace()
    disk = full_disk.Disk(directory)
    log = directory.with_suffix(".log")
    return full_disk.try_case(case, disk, 1, log, random.Random(seed))


@pytest.mark.parametrize(
    "label",
    [
        "convert to=tdmpc2",
        "pretrain",
        pytest.param("extract", marks=pytest.mark.slow),  # whose checkpoints are as pretrain's
        "report",
    ],
)
def test_a_command_names_the_file_keeps_what_was_there_and_goes_on(
    label, toy, toy_world_model, tmp_path
):
    """Its own disk has room for a part of what it writes, and then for all of it."""
    require_mounting(tmp_path)
    out = Path("{out}")
    files = ("convert", f"source={toy.data}", "to=tdmpc2", "steps=30", "files=6", "out={out}")
    make_results(tmp_path / "results")
    cases = {
        "convert to=tdmpc2": (files, full_disk._read_files, None),
        "pretrain": (tuple(toy.pretrain(out)), full_disk.saved_steps, None),
        "extract": (tuple(toy.extract(toy_world_model, out)), full_disk.saved_policies, None),
        "report": (("report", "run={out}"), full_disk._read_report, tmp_path / "results"),
    }
    words, saved, given = cases[label]
    (tmp_path / "disk").mkdir()
    case = full_disk.Case(label, words, saved, given)
    tally = result_of_fork(filled, case, tmp_path / "disk", 0)
    assert tally.wrong == []
    assert (tally.full, tally.identical, tally.named.total()) == (1, 1, 1)


def cut_off(directory: Path, size: str) -> tuple[str, list[Path]]:
    enter_namespace()
    mount(directory, size)
    frames = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3)).astype(np.uint8)
    try:
        write_video(directory / "a.mp4", frames)
    except PwmError as error:
        return str(error), list(directory.iterdir())
    return "", list(directory.iterdir())


@pytest.mark.parametrize("size", ["4k", "60k"])
def test_a_video_that_ffmpeg_cuts_off_in_silence_is_found(size, tmp_path):
    require_mounting(tmp_path)
    said, left = result_of_fork(cut_off, tmp_path, size)
    assert "a.mp4: 0 of its 50 frames were kept" in said
    assert "free some space there" in said
    assert left == []


def test_a_video_that_fits_has_every_frame(tmp_path):
    from imageio_ffmpeg import count_frames_and_secs

    write_video(tmp_path / "a.mp4", np.zeros((12, 64, 64, 3), np.uint8))
    assert count_frames_and_secs(str(tmp_path / "a.mp4"))[0] == 12
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_output_that_goes_to_the_full_disk_itself_ends_with_1():
    """/dev/full takes nothing, as a log on a full disk."""
    for streams in (">/dev/full", ">/dev/full 2>&1"):
        words = f"{sys.executable} -m pwm.cli --help {streams}"
        run = subprocess.run(
            ["sh", "-c", words], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert run.returncode == 1
        assert run.stderr == "" or "No space left on device" in run.stderr.splitlines()[0]
        assert "Exception ignored" not in run.stderr


def test_a_file_that_may_not_grow_is_like_a_full_disk(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_atomically(tmp_path / "a", b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(PwmError, match=r"a .File too large.: free some space there"):
            write_atomically(tmp_path / "a", bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
