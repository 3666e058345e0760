"""``pwm gather``: one store, one directory of policies or one table out of many jobs' parts.

The parts are put where the command, run as one process, keeps what it has done so far. Then that
command runs, and finds nothing left to do; so the result is what one process would have written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.fingerprints import require_unchanged
from pwm.core.locks import DirectoryLock
from pwm.core.progress import console
from pwm.core.settings import setting
from pwm.evaluation.episode_log import EpisodeLog
from pwm.evaluation.evaluate import OUTCOMES, STRIPS, VIDEOS
from pwm.models.policy_directory import put_policies
from pwm.pipelines.job_records import DONE, OUT, JobRecord
from pwm.pipelines.jobs import KINDS, Jobs, job_made_of
from pwm.simulation.collect import join_stores


@dataclass
class GatherConfig:
    """Settings of ``pwm gather``.

    Attributes:
        run: what was ``out=`` of ``pwm collect``, ``extract`` or ``evaluate`` with ``-m``.
        partial: gather the jobs that are done, though others are not.
    """

    run: str = setting(MISSING, input_path=True)
    partial: bool = False


def gather(config: GatherConfig) -> Path:
    """Merge what jobs made into what one process would have written: a store, policies, results.

    What is not done task by task, cloned baselines, is done now.

    Raises:
        PwmError: if jobs are not done (unless ``partial``), or a part is missing or damaged.
    """
    jobs = Jobs.read(Path(config.run))
    done = jobs.with_state(DONE)
    missing = [r for path, r in jobs.records.items() if path not in done]
    if missing and not (config.partial and done):
        named = ", ".join(f"{','.join(record.tasks)} {record.state}" for record in missing)
        raise PwmError(
            f"{len(missing)} of {len(jobs.records)} jobs are not done ({named}); the command that "
            "started them goes on with them, and partial=true gathers what is done."
        )
    kind, whole = KINDS[jobs.command], jobs.config
    if missing:
        specs = [
            s for r in done.values() for s in ([r.spec] if isinstance(r.spec, str) else r.spec)
        ]
        whole = replace(whole, **{kind.setting: specs}).as_job()
    parts = {path / OUT: record for path, record in done.items()}
    whole = _put_parts(jobs.command, whole, parts)
    kind.function(whole)
    console.print(f"Gathered {len(done)} jobs into {jobs.run}.", soft_wrap=True)
    return jobs.run


def _put_parts(command: str, whole: Any, parts: dict[Path, JobRecord]) -> Any:
    """Put parts in their places; returns the settings with which nothing is left to do."""
    out = Path(whole.out)
    if command == "collect":
        join_stores(whole, {task: part for part, r in parts.items() for task in r.tasks})
        return whole
    with DirectoryLock(out):
        if command == "extract":
            for part, record in parts.items():
                now = job_made_of(command, whole, record.spec)
                require_unchanged(part, record.made_of or {}, now)
                put_policies(part, out, record.tasks)
            return whole
        log = EpisodeLog(out / OUTCOMES)
        for part in parts:
            log.take_over(part / OUTCOMES)
            for pictures in (VIDEOS, STRIPS):
                _copy_files(part / pictures, out / pictures)
    return replace(whole, video=0, strip=0)


def _copy_files(source: Path, to: Path) -> None:
    for file in sorted(source.glob("*")):
        make_directory(to)
        write_atomically(to / file.name, file.read_bytes())
