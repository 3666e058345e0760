"""``pwm collect|extract|evaluate -m``: from the words of a command line to jobs and their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pwm.cli.overrides import LAUNCHER, Schema
from pwm.cli.words import hydra_value
from pwm.core.errors import PwmError
from pwm.core.layout import JOBS
from pwm.core.progress import console
from pwm.pipelines.job_records import DONE, LOG
from pwm.pipelines.job_status import print_status
from pwm.pipelines.jobs import KINDS, Jobs, job_specs, listed, planned_jobs

Launch = Callable[[list[str], Callable[[Any], Any]], None]
"""Runs words through Hydra, and calls a function with each job's settings."""

# By launcher, the plugin of Hydra that it needs, and the extra that installs it.
_PLUGINS = {
    "joblib": ("hydra_joblib_launcher", "jobs"),
    "slurm": ("hydra_submitit_launcher", "slurm"),
    "submitit_local": ("hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_ray_launcher", "ray"),
}


def run_jobs(
    schema: Schema, words: list[str], function: Callable[[Any], Any], launch: Launch
) -> None:
    """Run a command with ``-m``: a job a task, or a list of tasks, by the launcher chosen.

    Words that give several values to other settings, and one to that of the tasks, are runs that
    share nothing, each with its own ``out``.

    Args:
        schema: of the command, a key of KINDS.
        words: the command line.
        function: the command.
        launch: as said there.

    Raises:
        PwmError: for words or settings that do not fit, or if not all jobs are done in the end.
    """
    schema.check(words)
    launcher = schema.chosen(words, LAUNCHER)
    _require_plugin(launcher)
    setting = KINDS[schema.command].setting
    swept = schema.swept(words, setting)
    if swept is None:
        if not schema.has_sweep(words):
            raise PwmError(
                f"-m starts several jobs; give {setting}= a suite, or tasks joined with commas, "
                f"such as {setting}=mt30 or {setting}=walker-run,mw-reach."
            )
        require_runs_that_fit(schema, words)
        launch(words, function)
        return
    values, others = swept
    specs = job_specs(values)
    config = schema.composed([*others, _word(setting, specs[0])])
    config = replace(config, **{setting: values[0] if len(values) == 1 else listed(*specs)})
    run, fault = Path(config.out), None
    with planned_jobs(schema.command, config, specs) as (left, work):
        done = f", {len(specs) - len(left)} of them done already" if len(left) < len(specs) else ""
        console.print(
            f"{len(specs)} jobs in {run}{done}; `pwm status run={run}` shows how far they are.",
            soft_wrap=True,
        )
        if left:
            sweep_directory = _word("hydra.sweep.dir", str((run / JOBS).absolute()))
            tasks = f"{setting}={','.join(map(hydra_value, left))}"
            try:
                launch(["-m", *others, tasks, sweep_directory, "hydra.sweep.subdir=."], work)
            except PwmError:
                raise
            except Exception as error:
                fault = error
        _require_done(Jobs.read(run), launcher, fault)


def require_runs_that_fit(schema: Schema, words: list[str]) -> None:
    """Check the settings of each run of a sweep, before the first of them begins.

    Raises:
        PwmError: for settings that do not fit, or two pretrainings into one directory.
    """
    outs: set[str] = set()
    for settings in schema.runs(words):
        config = schema.composed(settings)
        if hasattr(config, "validate"):
            config.validate()
        if schema.command == "pretrain" and config.out in outs:
            raise PwmError(
                f"two runs of this sweep would write into out={config.out}; name it after what "
                "differs, such as 'out=runs/lr_${lr}'."
            )
        outs.add(config.out)


def _require_plugin(launcher: str | None) -> None:
    plugin, extra = _PLUGINS.get(launcher or "", (None, None))
    if plugin is not None and find_spec(f"hydra_plugins.{plugin}") is None:
        raise PwmError(
            f"launcher={launcher} is not installed; give `pip install 'pwm-worldmodels[{extra}]'`."
        )


def _word(setting: str, value: Any) -> str:
    return f"{setting}={hydra_value(value)}"


def _require_done(jobs: Jobs, launcher: str | None, fault: Exception | None) -> None:
    """Show how the jobs ended; raise PwmError if one is not done."""
    print_status(jobs.run)
    left = len(jobs.records) - len(jobs.with_state(DONE))
    if not left:
        return
    why = ""
    if fault is not None:
        reason = str(fault).strip().split("\n")[0] or type(fault).__name__
        why = f" The launcher {launcher or 'local'} stopped: {reason:.300}."
    logs = jobs.run / JOBS / "*" / LOG
    raise PwmError(
        f"{left} of {len(jobs.records)} jobs are not done.{why} What they printed is in {logs}; "
        "the same command goes on with them."
    ) from fault
