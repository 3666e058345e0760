"""Tensors in several safetensors files, written and read by torch's distributed checkpoint.

Each file is written by one rank. Whatever number of ranks wrote them, any number reads them, each
the parts that it holds. A file is plain safetensors, whose header says where its parts belong in
the whole tensors; none is pickle.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pwm.core.errors import PwmError
from pwm.core.files import file_sha256, fsync_directory

Groups = dict[str, dict[str, Tensor]]


def write_shards(directory: Path, groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    """Write this rank's part of tensors into a directory without safetensors files.

    All ranks call it; what all of them hold is written by one. Returns SHA-256 by name of the files
    that this rank wrote and synced. Raises PwmError if it cannot write.
    """
    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    try:
        dcp.save(_flat(groups), storage_writer=writer)
    except dcp.CheckpointException as error:
        reasons = {str(failure[0]) for failure in error.failures.values()}
        raise PwmError(
            f"cannot write {directory} ({'; '.join(sorted(reasons))}); the checkpoints of before "
            "are whole. Make room, and give the command again."
        ) from error
    rank, digests = dist.get_rank() if dist.is_initialized() else 0, {}
    for path in sorted(directory.glob(f"shard-{rank + 1:05d}-*.safetensors")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        digests[path.name] = file_sha256(path)
    fsync_directory(directory)
    return digests


def read_shards(directory: Path, wanted: Iterable[str] | None, into: Groups | None) -> Groups:
    """The ``wanted`` groups of tensors (all by default) from the files of :func:`write_shards`.

    They are read ``into`` tensors, sharded or not, which must be those of the files; by default
    into whole ones on the CPU, for which no process group is needed.
    """
    reader = HuggingFaceStorageReader(str(directory))
    if into is None:
        stored = reader.read_metadata().state_dict_metadata
        into = {}
        for key, entry in stored.items():
            assert isinstance(entry, TensorStorageMetadata)
            group, name = key.split("/", 1)
            if wanted is None or group in wanted:
                empty = torch.empty(entry.size, dtype=entry.properties.dtype)
                into.setdefault(group, {})[name] = empty
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(_flat(into), storage_reader=reader, no_dist=not dist.is_initialized())
    return into


def _flat(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{group}/{name}": tensor
        for group, items in groups.items()
        for name, tensor in items.items()
    }
