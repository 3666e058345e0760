"""Small made-up files in TD-MPC2's formats."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor

from pwm.core.suites import Suite

DATA = Path(__file__).parent.parent / "data"
CHUNK_2023 = DATA / "tdmpc2_mt30_chunk_2023.pt"
EXPECTED = DATA / "tdmpc2_mt30_tiny_expected.safetensors"
CHECKPOINTS = {
    "tdmpc2-old": DATA / "tdmpc2_mt30_tiny_old.pt",
    "tdmpc2-new": DATA / "tdmpc2_mt30_tiny_new.pt",
}


def chunk_fields(suite: Suite, task_ids: Sequence[int], rows: int, seed: int) -> dict[str, Tensor]:
    """Random episodes as the published files have them: padded, row 0 without action."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.tensor(task_ids, dtype=torch.int32)
    obs_dims = torch.tensor([task.obs_dim for task in suite])[ids.long()]
    action_dims = torch.tensor([task.action_dim for task in suite])[ids.long()]
    count = len(ids)
    fields = {
        "obs": torch.randn(count, rows, suite.obs_dim, generator=random),
        "action": torch.rand(count, rows, suite.action_dim, generator=random) * 2 - 1,
        "reward": torch.randn(count, rows, generator=random),
        "task": ids.unsqueeze(1).repeat(1, rows),
    }
    fields["obs"] *= (torch.arange(suite.obs_dim) < obs_dims[:, None]).unsqueeze(1)
    fields["action"] *= (torch.arange(suite.action_dim) < action_dims[:, None]).unsqueeze(1)
    fields["action"][:, 0] = torch.nan
    fields["reward"][:, 0] = torch.nan
    return fields


def save_chunk(path: Path, fields: dict[str, Tensor]) -> Path:
    """One data file, as the installed tensordict pickles it."""
    torch.save(TensorDict(fields, batch_size=fields["reward"].shape), path)
    return path


def make_chunk(path: Path, suite: Suite, task_ids: Sequence[int], rows: int, seed: int) -> Path:
    """One data file of random episodes."""
    return save_chunk(path, chunk_fields(suite, task_ids, rows, seed))


def rewrite_archive(
    source: Path, target: Path, change: Callable[[str, bytes], bytes | None], compress: int = 0
) -> Path:
    """Copies an archive of ``torch.save``; ``change`` gives each member's new bytes, or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for info in old.infolist():
            name = info.filename.partition("/")[2]
            data = change(name, old.read(info))
            if data is not None:
                new.writestr(f"archive/{name}", data)
    return target
