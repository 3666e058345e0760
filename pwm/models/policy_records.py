"""What saved policies say of themselves, without opening them."""

from __future__ import annotations

from pathlib import Path

from pwm.core.errors import PwmError
from pwm.runtime.checkpoint import is_checkpoint, read_meta, saved_kind


def policies_in(path: Path) -> list[Path]:
    """The policies at a path: itself, or those in it; none of anything else."""
    children = sorted(path.iterdir()) if path.is_dir() else []
    saved = [path] if is_checkpoint(path) else [child for child in children if is_checkpoint(child)]
    return [place for place in saved if _is_policy(place)]


def _is_policy(path: Path) -> bool:
    try:
        return saved_kind(path) == "policy"
    except PwmError:  # whoever reads it says how it is damaged
        return False


def extracted_from(policy: Path) -> str | None:
    """Where the world model of a policy was when it was extracted, if it says that."""
    made_by = read_meta(policy, "policy").get("made_by", {})
    checkpoint = made_by.get("config", {}).get("checkpoint")
    return None if checkpoint is None else str(checkpoint)
