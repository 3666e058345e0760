"""Published offline data into an episode store, and a store into files for TD-MPC2's own code."""

from __future__ import annotations

from pathlib import Path

from pwm.interop.conversion import (
    ConvertConfig,
)
from pwm.interop.export_data import export_store
from pwm.interop.import_data import import_files, import_minari
from pwm.interop.minari_data import PREFIX


def convert(config: ConvertConfig) -> Path:
    """Convert TD-MPC2's files or a Minari dataset into an episode store, or a store into files.

    The result is written under ``OUT.unfinished`` and gets its name when it is whole. A conversion
    that was stopped or killed goes on when the same command is given again: finished files are not
    read or written again (those read may be deleted), and the result is the same byte for byte.

    Returns:
        The directory made.

    Raises:
        PwmError: for settings that do not fit, or files that cannot be used.
        Interrupted: after a commit, when SIGINT or SIGTERM asked for it.
    """
    config.validate()
    if config.to == "tdmpc2":
        return export_store(config)
    return import_minari(config) if config.source.startswith(PREFIX) else import_files(config)
