"""A disk that runs full under some commands; all of them are among the slow tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.evaluation.videos import write_video

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "reliability" / "full_disk.py"
NO_DISK = "this system lets no user mount"
INSIDE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]


def on_small_disk(directory: Path, size: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command where a tmpfs is mounted on the directory."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {directory}"
    try:
        if subprocess.run([*INSIDE, mount], capture_output=True).returncode:
            pytest.skip(NO_DISK)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    line = [*INSIDE, f'{mount}; exec "$@"', "sh", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_a_command_names_the_file_keeps_what_was_there_and_goes_on():
    cases = "convert,convert to=tdmpc2,pretrain,report"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--tries", "1", "--cases", cases],
        capture_output=True,
        text=True,
        check=False,
    )
    if NO_DISK in result.stderr:
        pytest.skip(NO_DISK)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [row[1:4] for row in rows] == [["1", "0", "1 of 1"]] * 4


VIDEO = """
import sys
from pathlib import Path
import numpy as np
from pwm.core.errors import PwmError
from pwm.evaluation.videos import write_video

disk = Path(sys.argv[1])
frames = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3)).astype(np.uint8)
try:
    write_video(disk / "a.mp4", frames)
except PwmError as error:
    print(error)
assert not list(disk.iterdir())
"""


@pytest.mark.parametrize("size", ["4k", "60k"])
def test_a_video_that_ffmpeg_cuts_off_in_silence_is_found(size, tmp_path):
    run = on_small_disk(tmp_path, size, [sys.executable, "-c", VIDEO, str(tmp_path)])
    assert run.returncode == 0, run.stderr
    assert "a.mp4: 0 of its 50 frames were kept" in run.stdout
    assert "free some space there" in run.stdout


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
