"""The card of a shipped bundle: data, steps, seed, time, machine, commands and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.renamed_settings import with_current_names
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import Results, read_json
from pwm.extraction.config import ExtractConfig
from pwm.models.world_model import KIND, load_world_model
from pwm.reporting.bundle import RunParts, newest_meta, without_places
from pwm.reporting.templating import render
from pwm.runtime.checkpoint import read_meta
from pwm.runtime.run_dir import read_config, read_run

_STAGES = ("collect", "pretrain", "extract", "evaluate")


def card(
    out: Path,
    parts: RunParts,
    results: Results,
    commands: Sequence[str] = (),
    machine: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """The facts of a card, as JSON can hold them.

    Args:
        out: the bundle's directory, complete.
        parts: the run that the bundle is of.
        results: scores of the bundle's policies.
        commands: the commands that made the run, in their order; by default what it recorded.
        machine: the machine that made it, in words; by default what the run recorded.
        note: anything else that a reader should know.

    Raises:
        PwmError: if neither the run nor ``commands`` says how it was made.
    """
    recorded = [read_run(path) for path in (parts.run, *parts.world_models, *parts.policies)]
    recorded = [record for record in recorded if record]
    typed = list(commands) or list(dict.fromkeys(r["typed"] for r in recorded if r.get("typed")))
    if not typed:
        raise PwmError(f"{parts.run} does not say by what command it was made; give --command.")
    first = recorded[0] if recorded else {}
    return {
        "suite": results.suite,
        "made_by": {
            "commands": without_places(typed),
            "git": first.get("git"),
            "versions": first.get("versions"),
            "machine": machine or _machine(first.get("machine")),
            "seed": first.get("seed"),
            "seconds": _seconds(parts),
        },
        "note": note,
        "data": _data(parts.data),
        "world_model": _world_model(out / "world_model", parts.world_models),
        "policies": _policies(out / "policies", parts.policies),
        "sample": _data(out / "data"),
        "scores": _scores(results),
    }


def _machine(record: Mapping[str, Any] | None) -> str | None:
    if not record:
        return None
    processor = f"{record.get('processor')} CPU, {record.get('threads')} thread(s) of torch"
    return f"{record['gpu']}, {processor}" if record.get("gpu") else processor


def _seconds(parts: RunParts) -> dict[str, float]:
    """Wall-clock seconds by stage, summed over rounds, without interruptions."""
    timing = parts.run / "timing.json"
    if timing.is_file():
        found = read_json(timing, "remove it")
        rounds = found.values() if all(isinstance(v, dict) for v in found.values()) else [found]
        total = {stage: sum(r.get(stage, 0.0) for r in rounds) for stage in _STAGES}
    else:
        stages = {"pretrain": parts.world_models, "extract": parts.policies}
        total = {
            stage: sum(float(read_run(path).get("seconds") or 0) for path in paths)
            for stage, paths in stages.items()
        }
    return {stage: round(seconds, 1) for stage, seconds in total.items() if seconds}


def _data(directory: Path) -> dict[str, Any] | None:
    if not directory.is_dir():
        return None
    store = EpisodeStore.open(directory)
    records = [store.record(task.name) for task in store.suite]
    return {
        "episodes": sum(record.episodes for record in records),
        "rows": sum(record.rows for record in records),
        "behaviours": list(store.behaviours),
        "sha256": store.digest,
        "bytes": size_of(directory),
    }


def _world_model(shipped: Path, sources: Sequence[Path]) -> dict[str, Any] | None:
    if not shipped.is_dir():
        return None
    model = load_world_model(shipped)
    config = _config(sources[-1]) if sources else {}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "size": read_meta(shipped, KIND)["size"],
        "updates": sum(int(newest_meta(path).get("step") or 0) for path in sources),
        "rounds": len(sources),
        "batch_size": config.get("batch_size"),
        "horizons": (config.get("horizon") or {}).get("lengths"),
        "bytes": size_of(shipped),
    }


def _policies(shipped: Path, sources: Sequence[Path]) -> dict[str, Any] | None:
    if not shipped.is_dir():
        return None
    configs = [with_current_names(ExtractConfig, _config(path))[0] for path in sources]
    learners = [config.get("learner") or {} for config in configs]
    last = learners[-1] if learners else {}
    return {
        "count": sum(1 for path in shipped.iterdir() if path.is_dir()),
        "iterations": sum(learner.get("iterations") or 0 for learner in learners),
        "cloning_updates": sum(
            (learner.get("bc") or {}).get("warmup_steps") or 0 for learner in learners
        ),
        "rounds": len(sources),
        "horizon": last.get("horizon"),
        "batch_size": last.get("batch_size"),
        "networks": (last.get("networks") or {}).get("actor"),
        "bytes": size_of(shipped),
    }


def _config(directory: Path) -> dict[Any, Any]:
    return read_config(directory) if (directory / "config.yaml").is_file() else {}


def _scores(results: Results) -> dict[str, Any]:
    return {
        "episodes": results.episodes,
        "seeds": list(results.seeds),
        "mean": results.policy.mean_normalized_score,
        "mean_ci95": results.policy.mean_ci95,
        "tasks": {
            name: {
                "score": score.normalized_score,
                "ci95": score.normalized_ci95,
                "return": score.episode_return,
                "success": score.success_last,
            }
            for name, score in results.policy.tasks.items()
        },
    }


def size_of(directory: Path) -> int:
    """Bytes of all files under a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def card_text(facts: Mapping[str, Any], place: str) -> str:
    """The card for people, in Markdown.

    Args:
        facts: what :func:`card` gave.
        place: the bundle's path, as commands in the text should name it.
    """
    made, parts = facts["made_by"], {"world_model": "a world model", "policies": "policies"}
    parts["sample"] = "a sample of data"
    shown = {
        "name": Path(place).name,
        "place": place,
        "held": [text for name, text in parts.items() if facts[name]],
        "spent": [f"{stage} {seconds:,.0f} s" for stage, seconds in made["seconds"].items()],
        "versions": [f"{name} {version}" for name, version in (made["versions"] or {}).items()],
    }
    return render("card.md.j2", {**facts, **shown}).decode()


def write_card(out: Path, facts: Mapping[str, Any], place: str) -> None:
    """Write card.json and README.md.

    Raises:
        PwmError: if they cannot be written.
    """
    write_atomically(out / "card.json", (json.dumps(facts, indent=1) + "\n").encode())
    write_atomically(out / "README.md", card_text(facts, place).encode())
