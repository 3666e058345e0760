from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from pwm.core.errors import PwmError
from pwm.core.locks import DirectoryLock, is_locked

HOLDER = """
import sys, time
from pwm.core.locks import DirectoryLock
lock = DirectoryLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_holder_is_refused_with_pid_and_host_of_the_first(tmp_path, holder):
    with pytest.raises(PwmError) as refusal:
        DirectoryLock(tmp_path).acquire()
    assert f"process {holder.pid} " in str(refusal.value)
    assert socket.gethostname() in str(refusal.value)


def test_the_lock_vanishes_with_a_killed_process(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with DirectoryLock(tmp_path) as lock:
        assert lock.held


def test_two_locks_of_one_process_exclude_each_other_until_release(tmp_path):
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    with pytest.raises(PwmError, match=f"process {os.getpid()} "):
        second.acquire()
    first.release()
    assert not first.held
    second.acquire()
    second.release()


def test_a_released_lock_leaves_no_host_name_behind(tmp_path):
    with DirectoryLock(tmp_path):
        assert (tmp_path / ".lock").read_bytes()
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_missing_directory_is_one_sentence(tmp_path):
    with pytest.raises(PwmError, match="cannot write"):
        DirectoryLock(tmp_path / "none").acquire()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    """A directory from elsewhere could otherwise have any file emptied."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(PwmError, match="cannot write"):
        DirectoryLock(tmp_path / "run").acquire()
    assert (tmp_path / "mine").read_text() == "precious"


def test_looking_whether_it_is_locked_takes_nothing(tmp_path):
    assert not is_locked(tmp_path)
    with DirectoryLock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    assert (tmp_path / ".lock").read_bytes() == b""


def test_patience_waits_for_another_holder_to_end(tmp_path, holder):
    threading.Timer(0.3, holder.kill).start()
    with DirectoryLock(tmp_path, patience=30):
        assert holder.wait() == -signal.SIGKILL
