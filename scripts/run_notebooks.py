"""Run the notebooks of ``docs/notebooks`` and save them with their outputs: ``make notebooks``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from check_links import ROOT
from nbclient import NotebookClient

from pwm.core.files import write_atomically
from pwm.core.processes import environment_variables

SECONDS = 1500  # that a cell may take


def executed(path: Path, directory: Path) -> Any:
    """A notebook with the outputs of a run from its first cell to its last.

    Args:
        path: of the notebook, which stays as it is.
        directory: where it runs and leaves its files.

    Raises:
        CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(directory)}},
    )
    with environment_variables(
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        COLUMNS="80",
    ):
        client.execute()
    return notebook


if __name__ == "__main__":
    for found in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as scratch:
            write_atomically(found, nbformat.writes(executed(found, Path(scratch))).encode())
        print(f"{found} has its outputs.")
