"""Which measure of recorded data alone ranks policies as the simulator does.

``python scripts/offline_choice.py benchmark=runs/offline out=runs/offline_choice`` makes policies
of very different worth from the data and world models of ``scripts/offline_benchmark.py``, plays
each for ``episodes=8`` episodes, values them all by the data, and writes ``table.md``. It goes on
where it stopped. ``kinds=replay,medium`` are parts; ``make=false`` takes the policies that are
there, ``show=true`` prints the tables of what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from offline import choice_table
from offline.choice_measures import Lines, measure_all, play_all
from offline.choice_policies import Source, make_policies

from pwm.core.errors import PwmError
from pwm.core.worker_pool import WorkerPool

KNOWN = {
    "benchmark": "runs/offline", "out": "runs/offline_choice", "kinds": "replay,medium",
    "episodes": "8", "make": "true", "show": "false",
}  # fmt: skip


def sources(benchmark: Path, out: Path, kinds: Sequence[str]) -> list[Source]:
    """The benchmark's data and first world model of each kind; raises PwmError if one lacks."""
    found = []
    for kind in kinds:
        data = sorted((benchmark / "data" / kind).glob("all-*"))
        models = sorted((benchmark / "world_models").glob(f"{kind}-seed-0-*"))
        if not data or not models:
            raise PwmError(
                f"benchmark={benchmark} has no data or no world model of {kind}; run "
                "scripts/offline_benchmark.py with one of our own methods first."
            )
        found.append(Source(kind, data[0], models[0], out / "policies" / kind))
    return found


def main(words: Sequence[str]) -> None:
    """Do what is lacking and print the tables."""
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := set(given) - set(KNOWN):
        raise PwmError(f"unknown setting {', '.join(unknown)}; there are {', '.join(KNOWN)}.")
    said = KNOWN | given
    torch.set_num_threads(1)
    out, benchmark = Path(said["out"]), Path(said["benchmark"])
    out.mkdir(parents=True, exist_ok=True)
    scores, measures = Lines(out / "scores.jsonl"), Lines(out / "measures.jsonl")
    for source in sources(benchmark, out, said["kinds"].split(",")) * (said["show"] != "true"):
        for line in make_policies(source) if said["make"] == "true" else ():
            print("made", line, flush=True)
        for line in measure_all(source, benchmark, measures):
            print(line, flush=True)
        with WorkerPool(1, 600.0, 5) as pool:
            for line in play_all(source, benchmark, int(said["episodes"]), scores, pool):
                print(line, flush=True)
    both = [{**measures.found[k], **x} for k, x in scores.found.items() if k in measures.found]
    text = choice_table.markdown(both)
    (out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PwmError as error:
        sys.exit(f"offline_choice: {error}")
