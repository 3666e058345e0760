"""The card of what ships: data, steps, seed, time, machine, commands and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import Results, read_json
from pwm.models.world_model import KIND, load_world_model
from pwm.reporting.bundle import RunParts, without_places
from pwm.runtime.checkpoint import read_meta
from pwm.runtime.run_dir import read_run
from pwm.runtime.training_checkpoints import list_steps

_STAGES = ("collect", "pretrain", "extract", "evaluate")


def card(
    out: Path,
    parts: RunParts,
    results: Results,
    commands: Sequence[str] = (),
    machine: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """The facts, as JSON can hold them.

    Args:
        out: what ships, complete.
        parts: the run that it is of.
        results: its scores.
        commands: that made it, typed one after the other; by default what the run recorded.
        machine: that made it, in words; by default what the run recorded.
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
    """By stage, of all rounds; interruptions do not count."""
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
        "updates": sum(_updates(path) for path in sources),
        "rounds": len(sources),
        "batch_size": config.get("batch_size"),
        "horizons": (config.get("horizon") or {}).get("lengths"),
        "bytes": size_of(shipped),
    }


def _updates(world_model: Path) -> int:
    steps = list_steps(world_model / "checkpoints")
    return int(read_meta(steps[-1] if steps else world_model, KIND).get("step") or 0)


def _policies(shipped: Path, sources: Sequence[Path]) -> dict[str, Any] | None:
    if not shipped.is_dir():
        return None
    learners = [_config(path).get("learner") or {} for path in sources]
    last = learners[-1] if learners else {}
    return {
        "count": sum(1 for path in shipped.iterdir() if path.is_dir()),
        "iterations": sum(learner.get("iterations") or 0 for learner in learners),
        "cloning_updates": sum(learner.get("clone_first") or 0 for learner in learners),
        "rounds": len(sources),
        "horizon": last.get("horizon"),
        "batch_size": last.get("batch_size"),
        "networks": (last.get("networks") or {}).get("actor"),
        "bytes": size_of(shipped),
    }


def _config(directory: Path) -> dict[str, Any]:
    file = directory / "config.yaml"
    found = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


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
        place: of what ships, as commands in the text should name it.
    """
    made, scores = facts["made_by"], facts["scores"]
    lines = [f"# {Path(place).name}", ""]
    lines += [_summary(facts), "", *([facts["note"], ""] if facts["note"] else [])]
    lines += ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {text} |" for name, text in _rows(facts, place) if text]
    lines += ["", "Made by", "", "```sh", *made["commands"], "```", ""]
    lines += ["Use:", "", "```sh", *_usage(facts, place), "```", ""]
    lines += [f"Scores of {scores['episodes']} episodes per task, {_seeds(scores['seeds'])}:", ""]
    lines += [
        "| task | score | 95 % interval | return | success |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, score in scores["tasks"].items():
        success = "" if score["success"] is None else f"{score['success']:.0%}"
        lines.append(_score_row(name, score["score"], score["ci95"], score["return"], success))
    lines.append(_score_row("**mean**", scores["mean"], scores["mean_ci95"], None, ""))
    return "\n".join(lines) + "\n"


def _summary(facts: Mapping[str, Any]) -> str:
    kinds = {"world_model": "a world model", "policies": "policies", "sample": "a sample of data"}
    held = [text for name, text in kinds.items() if facts[name]]
    listed = " and ".join([", ".join(held[:-1]), held[-1]] if len(held) > 1 else held)
    return f"{listed[:1].upper()}{listed[1:]} of suite {facts['suite']}. Facts: `card.json`."


def _rows(facts: Mapping[str, Any], place: str) -> list[tuple[str, str]]:
    made, model, policies = facts["made_by"], facts["world_model"], facts["policies"]
    rows = [("data it learned from", _data_text(facts["data"]))]
    if model:
        horizons = model["horizons"] and ", ".join(map(str, model["horizons"]))
        text = f"`{place}/world_model`: {model['parameters'] / 1e6:.1f}M parameters, "
        text += f"{model['updates']:,} updates{_in_rounds(model['rounds'])}"
        text += f" of {model['batch_size']} windows" if model["batch_size"] else ""
        text += f", H = {horizons}" if horizons else ""
        rows.append(("world model", f"{text}; {_megabytes(model['bytes'])}"))
    if policies:
        text = f"`{place}/policies/<task>`: {policies['count']} tasks, "
        text += f"{policies['iterations']:,} iterations{_in_rounds(policies['rounds'])}"
        if policies["cloning_updates"]:
            text += f" beside {policies['cloning_updates']:,} updates of cloning alone"
        text += f", H = {policies['horizon']}" if policies["horizon"] else ""
        rows.append(("policies", f"{text}; {_megabytes(policies['bytes'])}"))
    if facts["sample"]:
        text = f"`{place}/data`: {_data_text(facts['sample'])}"
        rows.append(("sample", f"{text}; {_megabytes(facts['sample']['bytes'])}"))
    spent = ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in made["seconds"].items())
    seed = None if made["seed"] is None else str(made["seed"])
    versions = ", ".join(f"{name} {version}" for name, version in (made["versions"] or {}).items())
    return [
        *rows,
        ("wall-clock", spent),
        ("machine", made["machine"] or ""),
        ("seed", seed or ""),
        ("revision", made["git"] or ""),
        ("versions", versions),
    ]


def _data_text(data: Mapping[str, Any] | None) -> str:
    if not data:
        return ""
    behaviours = ", ".join(data["behaviours"])
    return f"{data['episodes']:,} episodes, {data['rows']:,} rows; behaviours {behaviours}"


def _in_rounds(rounds: int) -> str:
    return f" in {rounds} rounds" if rounds > 1 else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seeds {seeds[0]} to {seeds[-1]}"


def _usage(facts: Mapping[str, Any], place: str) -> list[str]:
    name = Path(place).name
    task = next(iter(facts["scores"]["tasks"]))
    lines = []
    if facts["policies"]:
        lines.append(f"pwm evaluate policy={place}/policies out=runs/{name}_shipped")
    if facts["world_model"]:
        data = f"{place}/data" if facts["sample"] else "DATA"
        lines.append(
            f"pwm extract tasks={task} checkpoint={place}/world_model data={data} "
            f"out=runs/{name}_policies"
        )
    return lines


def _score_row(
    name: str, score: float, ci95: Sequence[float] | None, ret: float | None, success: str
) -> str:
    interval = "" if ci95 is None else f"{ci95[0]:.0f} to {ci95[1]:.0f}"
    shown = "" if ret is None else f"{ret:.1f}"
    return f"| {name} | {score:.1f} | {interval} | {shown} | {success} |"


def write_card(out: Path, facts: Mapping[str, Any], place: str) -> None:
    """Write card.json and README.md.

    Raises:
        PwmError: if they cannot be written.
    """
    write_atomically(out / "card.json", (json.dumps(facts, indent=1) + "\n").encode())
    write_atomically(out / "README.md", card_text(facts, place).encode())
