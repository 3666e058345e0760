"""A disk of a few megabytes that only the process at hand sees, where the system lets users mount.

To be used in a forked process (:mod:`forked`): what is mounted goes with it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest
from forked import result_of_fork

_NEW_NAMESPACES = 0x10000000 | 0x00020000  # CLONE_NEWUSER | CLONE_NEWNS
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC


def enter_namespace() -> None:
    """Become root of a namespace of this process's own, in which it may mount.

    Raises:
        OSError: where the system does not let it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_NAMESPACES):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(line)
    if libc.mount(b"none", b"/", None, _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount")


def mount(directory: Path, size: str) -> None:
    """Mount a tmpfs of a size as mount(8) writes it, such as 3m."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    subprocess.run(words, check=True)


def _may_mount(directory: Path) -> bool:
    try:
        enter_namespace()
        mount(directory, "4k")
    except (OSError, AttributeError, subprocess.CalledProcessError):
        return False
    return True


def require_mounting(directory: Path) -> None:
    """Skip the test where no user may mount."""
    if not result_of_fork(_may_mount, directory):
        pytest.skip("this system lets no user mount")
