"""Assemble a bundle to ship: a run's world model, policies, a sample of its data, and a card.

    python scripts/ship.py --run runs/grow80 --out checkpoints/mt80

RUN is that of `pwm grow` (the last world model and the best policies of its rounds ship), of
`pwm quickstart`, or a directory with world_model/, policies/ and data/. The shipped policies, whose
weights are rounded to float16, are evaluated again in RUN/shipped, on other episodes than those by
which the best were chosen, and these scores stand on the card. The same command goes on where it
was stopped, and does not repeat what is done. --world-model, --policies and --data name parts that
lie elsewhere; --without names parts that are not to ship.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pwm.core.errors import PwmError
from pwm.core.files import make_directory
from pwm.data.pack_sample import SampleConfig, sample
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.evaluation.scores import Results
from pwm.reporting.bundle import RunParts, ship_policies, ship_world_model
from pwm.reporting.model_card import card, size_of, write_card

PARTS = ("world_model", "policies", "data")


def ship(arguments: argparse.Namespace) -> int:
    """Write the bundle; returns its bytes.

    Raises:
        PwmError: for a run that lacks a part, or a bundle that is too large.
    """
    parts, out = _parts(arguments), arguments.out
    make_directory(out)
    if "world_model" not in arguments.without:
        ship_world_model(_last(parts.world_models, "world model", parts.run), out / "world_model")
    if "data" not in arguments.without:
        chosen = {name: getattr(arguments, name) for name in ("episodes", "whole", "rows")}
        sample(SampleConfig(data=str(parts.data), out=str(out / "data"), **chosen))
    if "policies" not in arguments.without:
        policies = parts.best or _last(parts.policies, "policies", parts.run)
        ship_policies(policies, out / "policies")
    facts = card(
        out, parts, _results(arguments), arguments.command, arguments.machine, arguments.note
    )
    write_card(out, facts, arguments.place or out.as_posix())
    return size_of(out)


def _parts(arguments: argparse.Namespace) -> RunParts:
    parts = RunParts.of(arguments.run)
    if arguments.world_model:
        parts = dataclasses.replace(parts, world_models=(arguments.world_model,))
    if arguments.policies:
        parts = dataclasses.replace(parts, policies=(arguments.policies,), best=None)
    return dataclasses.replace(parts, data=arguments.data or parts.data)


def _last(paths: tuple[Path, ...], what: str, run: Path) -> Path:
    if not paths:
        raise PwmError(f"{run} has no {what}; say where, or leave that part out by --without.")
    return paths[-1]


def _results(arguments: argparse.Namespace) -> Results:
    """Scores of the shipped policies, or those that are recorded where no policies ship."""
    evaluation = arguments.evaluation or arguments.run / "shipped"
    if "policies" in arguments.without:
        return Results.load(evaluation / "results.json")
    policies = str(arguments.out / "policies")
    seed = arguments.seed
    return evaluate(EvaluateConfig(policy=policies, out=str(evaluation), baselines=[], seed=seed))


def main() -> None:
    """Read the command line and ship."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world-model", type=Path, help="in the place of RUN's last")
    parser.add_argument("--policies", type=Path, help="in the place of RUN's best")
    parser.add_argument("--data", type=Path, help="in the place of RUN/data")
    parser.add_argument("--evaluation", type=Path, help="where scores are kept: RUN/shipped")
    parser.add_argument("--seed", type=int, default=5000, help="of the first episode of that")
    parser.add_argument("--without", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--episodes", type=int, default=SampleConfig.episodes, help="of the sample")
    parser.add_argument("--whole", type=int, default=SampleConfig.whole, help="as for pwm sample")
    parser.add_argument("--rows", type=int, default=SampleConfig.rows, help="as for pwm sample")
    parser.add_argument("--command", action="append", default=[], help="of the run, for the card")
    parser.add_argument("--machine", help="that made the run, in words")
    parser.add_argument("--note", help="a sentence for the card")
    parser.add_argument("--place", help="of OUT, as commands on the card should name it")
    parser.add_argument("--limit", type=float, default=80.0, help="MB of the directory of OUT")
    arguments = parser.parse_args()
    try:
        size, total = ship(arguments), size_of(arguments.out.parent)
    except PwmError as error:
        sys.exit(f"ship: error: {error}")
    print(f"{arguments.out}: {size / 1e6:.1f} MB; {arguments.out.parent}: {total / 1e6:.1f} MB")
    if total > 1e6 * arguments.limit:
        sys.exit(f"ship: error: {arguments.out.parent} exceeds {arguments.limit:g} MB; ship less.")


if __name__ == "__main__":
    main()
