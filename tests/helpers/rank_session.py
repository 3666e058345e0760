"""Run several commands in one group of ranks: `torchrun ... rank_session.py COMMANDS.json`.

Each command is a list of words; the main rank writes the exit codes of all ranks beside the file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from pwm.cli.main import main


def exit_code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:
        return int(str(stop.code))


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    commands = Path(sys.argv[1])
    codes: list[list[int]] = []
    for words in json.loads(commands.read_text()):
        of_ranks: list[int] = [0] * dist.get_world_size()
        dist.all_gather_object(of_ranks, exit_code(words))
        codes.append(of_ranks)
    if dist.get_rank() == 0:
        commands.with_suffix(".codes").write_text(json.dumps(codes))
    dist.barrier()  # none leaves while another still writes
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # torch's threads now and then abort a busy machine's process as it is torn down
