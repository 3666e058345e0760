"""A repository's model card: metadata for the hub as YAML, and a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateError

from pwm import __version__
from pwm.core.errors import PwmError
from pwm.evaluation.scores import read_json
from pwm.hub.contents import Contents
from pwm.reporting.model_card import card_text
from pwm.reporting.templating import render

_DOMAINS = {"dmcontrol": "dm-control", "metaworld": "meta-world", "gymnasium": "gymnasium"}


def card_page(
    held: Contents, folder: Path, repo: str, license: str | None, datasets: Sequence[str]
) -> str:
    """The content of a repository's README.md.

    Args:
        held: what is in ``folder``, which the repository gets.
        folder: a directory.
        repo: the repository, ``user/name``.
        license: of the weights, as the hub names it, if known.
        datasets: names of data sets on the hub that it learned from.

    Raises:
        PwmError: if the facts of a bundle's card are not what a bundle's are.
    """
    name = repo.partition("/")[2]
    facts = read_json(held.card, "make the bundle again") if held.card else None
    try:
        front = metadata(held, facts, name, license, datasets)
        page = card_text(facts, name) if facts else None
    except (LookupError, TypeError, AttributeError, ValueError, TemplateError) as error:
        raise PwmError(f"{held.card} is no card of a bundle ({error}); delete it.") from error
    shown = {
        "front": yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        "page": page,
        "repo": repo,
        "name": name,
        "policies": _place(name, held.policies, folder),
        "world_model": _place(name, held.world_model, folder),
        "parameters": held.parameters,
        "tasks": held.tasks,
        "version": __version__,
    }
    return render("hub_card.md.j2", shown).decode()


def _place(name: str, path: Path | None, folder: Path) -> str | None:
    return None if path is None else Path(name, path.relative_to(folder)).as_posix()


def metadata(
    held: Contents,
    facts: Mapping[str, Any] | None,
    name: str,
    license: str | None,
    datasets: Sequence[str],
) -> dict[str, Any]:
    """What the hub reads of a card; what is not known is left out.

    Args:
        held: what is in the repository.
        facts: of a bundle's card, whose scores become the model's results.
        name: of the model.
        license: as for :func:`card_page`.
        datasets: likewise.
    """
    domains = [_DOMAINS[task.domain] for task in held.tasks if task.domain in _DOMAINS]
    tags = ["robotics", "reinforcement-learning", *(["world-model"] if held.world_model else [])]
    tags += [*dict.fromkeys(domains), *([facts["suite"]] if facts else [])]
    known: dict[str, Any] = {
        "library_name": "pwm",
        "pipeline_tag": "reinforcement-learning",
        "license": license,
        "tags": tags,
        "datasets": list(datasets),
    }
    if facts and held.policies:
        known["metrics"] = ["normalized_score"]
        known["model-index"] = [{"name": name, "results": _results(facts)}]
    return {key: value for key, value in known.items() if value}


def _results(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each task's score and their mean, in the form of the hub's model index."""
    scores = {name: score["score"] for name, score in facts["scores"]["tasks"].items()}
    scores[facts["suite"]] = facts["scores"]["mean"]
    return [
        {
            "task": {"type": "reinforcement-learning", "name": "continuous control"},
            "dataset": {"type": name, "name": name},
            "metrics": [
                {
                    "type": "normalized_score",
                    "name": "normalized score, 0 to 100",
                    "value": round(float(score), 2),
                }
            ],
        }
        for name, score in scores.items()
    ]
