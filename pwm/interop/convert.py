"""Other people's offline data into an episode store, and a store into files for TD-MPC2's code."""

from __future__ import annotations

from pathlib import Path

from pwm.interop.array_files import array_files, holds_tables
from pwm.interop.conversion import ConvertConfig
from pwm.interop.export_data import export_store
from pwm.interop.import_data import import_arrays, import_files, import_minari
from pwm.interop.minari_data import PREFIX
from pwm.interop.tdmpc2_data import padded_entries
from pwm.interop.torch_archive import TorchFile


def convert(config: ConvertConfig) -> Path:
    """Convert TD-MPC2's files, a Minari dataset or arrays into a store, or a store into files.

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
    if config.source.startswith(PREFIX):
        return import_minari(config)
    source = Path(config.source)
    arrays = array_files(source)
    if not arrays and source.is_file() and padded_entries(TorchFile(source).content) is None:
        arrays = [source] if holds_tables(source) else []
    return import_arrays(config, arrays) if arrays else import_files(config)
