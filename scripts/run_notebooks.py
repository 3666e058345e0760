"""Run the notebooks of ``docs/notebooks`` and save them with their outputs: ``make notebooks``."""

from __future__ import annotations

import os
import re
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
    for cell in notebook.cells:
        settle(cell.get("outputs", []))
    return notebook


def settle(outputs: list[Any]) -> None:
    """Join what a cell printed, with the last state alone of lines that were drawn anew."""
    printed = [output for output in outputs if output["output_type"] == "stream"]
    if not printed:
        return
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(o["text"] for o in printed))
    lines = [line.rstrip().split("\r")[-1] for line in text.split("\n")]
    printed[0]["text"] = "\n".join(lines).rstrip("\n") + "\n"
    outputs[:] = [o for o in outputs if o not in printed[1:]]


if __name__ == "__main__":
    for found in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as scratch:
            write_atomically(found, nbformat.writes(executed(found, Path(scratch))).encode())
        print(f"{found} has its outputs.")
