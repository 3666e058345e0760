"""``pwm import``: a published checkpoint becomes a world model that every command opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import file_sha256, make_directory
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.progress import console
from pwm.core.settings import setting
from pwm.core.suites import get_suite
from pwm.core.validation import require_writable
from pwm.interop.tdmpc2_checkpoints import PublishedModel, read_published
from pwm.models.world_model import KIND, model_meta
from pwm.runtime.checkpoint import is_checkpoint, read_meta, save_checkpoint


@dataclass
class ImportConfig:
    """Settings of ``pwm import``.

    Attributes:
        checkpoint: a file of TD-MPC2, of its old or new layout, or of PWM.
        suite: the tasks that it was trained on: ``mt30``, ``mt80``, or the task of a single-task
            model.
        out: the directory to make, for ``checkpoint=`` of other commands.
    """

    checkpoint: str = setting(MISSING, input_path=True)
    suite: Any = MISSING
    out: str = MISSING


def import_checkpoint(config: ImportConfig) -> Path:
    """Import a published TD-MPC2 or PWM world model.

    Every size is inferred from the file. Q ensemble and policy prior come along where the file has
    them. Observations are normalized where an agent of PWM has running moments of them (obs_rms).

    Returns:
        The directory, which :func:`pwm.load_world_model` opens.

    Raises:
        PwmError: if the file cannot be read safely or does not fit the suite.
    """
    path, out = Path(config.checkpoint), Path(config.out)
    suite = get_suite(config.suite)
    require_writable(config.out)
    _require_free(out)
    found = read_published(path, suite)
    origin = {
        "file": path.name,
        "sha256": file_sha256(path),
        "layout": found.layout,
        "size": found.size_name,
    }
    meta = {**model_meta(found.skeleton), "imported": origin}
    make_directory(out)
    with DirectoryLock(out):
        _require_free(out)  # still
        save_checkpoint(out, KIND, {"model": found.state}, meta)
    console.print(f"{path.name} is a model of {_describe(found)}; imported into {out}.")
    for note in found.notes:
        console.print(note)
    return out


def _require_free(out: Path) -> None:
    if not out.exists() or (out.is_dir() and {path.name for path in out.iterdir()} <= {LOCK_NAME}):
        return
    if is_checkpoint(out) and "imported" in read_meta(out, KIND):
        return
    raise PwmError(f"{out} exists and holds no imported model; give another out=.")


def _describe(found: PublishedModel) -> str:
    model, size = found.skeleton, found.skeleton.size
    parameters = sum(tensor.numel() for tensor in found.state.values())
    tasks = f"suite {model.suite.name}" if size.task_dim else f"task {model.suite.name}"
    rest = f"{size.num_q} Q networks and policy prior" if model.has_q else "no Q networks or prior"
    if model.episodic:
        rest += ", termination head"
    return (
        f"{tasks} in layout {found.layout}, of size {found.size_name}: encoder "
        f"{size.encoder_dim} x {size.encoder_layers}, MLPs {size.mlp_dim}, latent "
        f"{size.latent_dim}, task embedding {size.task_dim}, {rest}, {parameters:,} parameters"
    )
