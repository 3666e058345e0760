"""Several commands in one group of ranks, which are forked processes that talk through gloo."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from forked import Forked

import pwm.pretraining.fsdp  # noqa: F401 - not by every rank anew
from pwm.cli.main import main


def run_by_ranks(
    commands: list[list[str]], directory: Path, ranks: int = 2
) -> tuple[list[list[int]], str]:
    """The exit codes of all ranks, command by command, and what the ranks said.

    Args:
        commands: lists of words.
        directory: where each rank's output goes.
        ranks: how many.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    codes = directory / "codes"
    processes = [
        Forked(
            partial(_session, commands, rank, ranks, port, codes), directory / f"rank_{rank}.log"
        )
        for rank in range(ranks)
    ]
    ended = [process.wait(800) for process in processes]
    said = "".join(process.printed for process in processes)
    assert ended == [0] * ranks, said
    return [list(map(int, line.split())) for line in codes.read_text().splitlines()], said


def _session(commands: list[list[str]], rank: int, ranks: int, port: int, codes: Path) -> int:
    """What one rank does, in an environment as torchrun sets it."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "forked",
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for words in commands:
        of_ranks: list[int] = [0] * ranks
        dist.all_gather_object(of_ranks, _exit_code(words))
        if rank == 0:
            with codes.open("a") as file:
                print(*of_ranks, file=file)
    dist.barrier()  # none leaves while another still writes
    return 0


def _exit_code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:
        return int(str(stop.code))
