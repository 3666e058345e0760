"""Scores of policies that are extracted from a world model, for studies of world models."""

import json
import shlex
import sys
from pathlib import Path

from pwm.cli.main import main as pwm


def extracted_scores(
    model: Path, data: str, out: Path, settings: str, episodes: int, seed: int = 0
) -> dict[str, float]:
    """Extract and evaluate what is not there yet.

    Args:
        model: whatever ``checkpoint=`` takes.
        data: an episode store.
        out: gets ``policies`` and an evaluation.
        settings: of ``pwm extract``, ``tasks=`` among them.
        episodes: per task, of the evaluation.
        seed: of the extraction.

    Returns:
        Normalized scores by task. Ends the program, as the commands would, where one fails.
    """
    results = out / "results.json"
    if not results.is_file():
        policies = out / "policies"
        given = [f"checkpoint={model}", f"data={data}", f"out={policies}", f"seed={seed}"]
        for words in (
            ["extract", *given, *shlex.split(settings)],
            [
                "evaluate",
                f"policy={policies}",
                f"out={out}",
                "baselines=[]",
                f"episodes={episodes}",
            ],
        ):
            if code := pwm(words):
                sys.exit(code)
    tasks = json.loads(results.read_text())["tasks"]
    return {name: float(score["normalized_score"]) for name, score in tasks.items()}
