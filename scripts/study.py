"""Compare settings of extraction: variants x seeds on the same episodes, one Markdown table.

``python scripts/study.py scripts/studies/remedies.yaml --run runs/mixed10`` extracts the study's
tasks with each variant and seed from the run's world model and data, all tasks at once, evaluates
the policies, and prints normalized scores. It goes on where it stopped.

A variant is a line of settings of ``pwm extract``, or a mapping::

    extract: "learner.horizon=8"   # settings, if any
    world_model: longer            # used in the place of the run's
    ensemble: [second, third]      # used beside it

whose names are in the study's ``world_models``, each a line of settings in which its pretraining
differs from the run's. Each is pretrained once.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extracted_scores import extracted_scores

from pwm.core.errors import PwmError
from pwm.core.renamed_settings import with_current_names
from pwm.core.signals import Interrupted
from pwm.core.suites import get_suite
from pwm.core.validation import from_plain
from pwm.pretraining.config import PretrainConfig
from pwm.pretraining.pretrain import pretrain
from pwm.reporting.templating import markdown_table
from pwm.runtime.run_dir import read_config, read_run


@dataclass
class Variant:
    """Settings of extraction, and the world models that they are tried on."""

    extract: str = ""
    world_model: str | None = None
    ensemble: list[str] = field(default_factory=list)


@dataclass
class Study:
    """The content of a study's file.

    Attributes:
        tasks: extracted together.
        variants: the first is what the others are compared to.
        base: settings of extraction that all variants share.
        world_models: settings in which pretraining differs from the run's, by name.
    """

    tasks: list[str]
    variants: dict[str, Variant]
    base: str = ""
    world_models: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Study":
        """Raise PwmError unless the file describes a study."""
        plain = yaml.safe_load(file.read_text())
        given = {
            name: {"extract": variant or ""} if not isinstance(variant, Mapping) else variant
            for name, variant in plain["variants"].items()
        }
        study = from_plain(cls, {**plain, "variants": given})
        for name, variant in study.variants.items():
            asked = {*variant.ensemble, *filter(None, [variant.world_model])}
            if unknown := asked - study.world_models.keys():
                raise PwmError(
                    f"{file}: '{name}' names the world models {sorted(unknown)}, and world_models "
                    f"has {sorted(study.world_models)}."
                )
        return study

    def world_models_of(self, variants: list[str]) -> list[str]:
        """The world models that some variants need beside the run's."""
        used = (self.variants[name] for name in variants)
        asked = {name for v in used for name in [*v.ensemble, v.world_model]}
        return [name for name in self.world_models if name in asked]


@dataclass
class Runner:
    """A study on a run, with the settings that the command line adds.

    Attributes:
        study: what to do.
        run: has ``world_model/``, made by ``pwm pretrain``, and ``data/``.
        out: gets ``world_models/`` and ``<variant>/seed_<n>/``.
        extract: settings of every extraction, which those of a variant override.
        pretrain: settings of every pretraining, which those of a world model override.
        episodes: per task, of an evaluation.
    """

    study: Study
    run: Path
    out: Path
    extract: list[str]
    pretrain: list[str]
    episodes: int

    def results(self, variants: list[str], seeds: int) -> "Results":
        """Pretrain, extract and evaluate what is not there yet; the results by variant."""
        for name in self.study.world_models_of(variants):
            self._pretrain(name)
        found: Results = {name: [] for name in variants}
        for seed in range(seeds):  # a table of fewer seeds is there before one of more
            for name in variants:
                directory = self.out / _directory(name) / f"seed_{seed}"
                if not (directory / "results.json").is_file():
                    self._extract(directory, self.study.variants[name], seed)
                found[name].append(Result.read(directory))
        return found

    def _pretrain(self, name: str) -> None:
        """Repeat the pretraining of the run's world model with other settings."""
        run = self.run / "world_model"
        if not (run / "config.yaml").is_file():
            raise PwmError(f"{run} has no config.yaml; --run needs a world model of pwm pretrain.")
        words = [*self.pretrain, *shlex.split(self.study.world_models[name])]
        given = OmegaConf.to_container(OmegaConf.from_dotlist(words))
        assert isinstance(given, dict)
        named = (with_current_names(PretrainConfig, s)[0] for s in (read_config(run), given))
        plain = OmegaConf.to_container(OmegaConf.merge(*named))
        assert isinstance(plain, dict)
        plain |= {"data": f"{self.run}/data", "out": str(self._world_model(name)), "resume": "auto"}
        pretrain(from_plain(PretrainConfig, plain))

    def _world_model(self, name: str | None) -> Path:
        if name is None:
            return self.run / "world_model"
        return self.out / "world_models" / _directory(name)

    def _extract(self, directory: Path, variant: Variant, seed: int) -> None:
        ensemble = ",".join(str(self._world_model(name)) for name in variant.ensemble)
        settings = [
            "tasks=[" + ",".join(self.study.tasks) + "]", f"ensemble=[{ensemble}]",
            *shlex.split(self.study.base), *self.extract, *shlex.split(variant.extract),
        ]  # fmt: skip
        extracted_scores(
            self._world_model(variant.world_model), f"{self.run}/data", directory,
            shlex.join(settings), self.episodes, seed,
        )  # fmt: skip


def _directory(name: str) -> str:
    """A variant's name as that of a directory which a command line takes as one word."""
    return re.sub(r"[^\w.+-]+", "_", name)


@dataclass
class Result:
    """Normalized scores by task, and seconds of extraction and of its world model's pretraining."""

    scores: dict[str, float]
    seconds: float
    pretraining: float = np.nan  # of a model whose run is not there

    @classmethod
    def read(cls, directory: Path) -> "Result":
        """The result of one variant and seed."""
        tasks = json.loads((directory / "results.json").read_text())["tasks"]
        scores = {name: float(score["normalized_score"]) for name, score in tasks.items()}
        policies = directory / "policies"
        model = read_run(Path(read_config(policies)["checkpoint"]))
        return cls(
            scores, float(read_run(policies)["seconds"]), float(model.get("seconds") or np.nan)
        )


Results = dict[str, list[Result]]


def table(results: Results) -> str:
    """Markdown: a row per task, a column per variant; mean over seeds, +- the standard error."""
    return markdown_table(list(_rows(results)))


def _rows(results: Results) -> Iterator[list[str]]:
    names = list(results)
    tasks = list(results[names[0]][0].scores)
    yield ["task", *names]
    for task in tasks:
        yield [task, *(_mean(_over(runs, [task])) for runs in results.values())]
    domains: dict[str, list[str]] = {}
    for task in get_suite(tasks):
        domains.setdefault(task.domain, []).append(task.name)
    for domain, members in domains.items() if len(domains) > 1 else ():
        yield [f"mean, {domain}", *(_mean(_over(runs, members)) for runs in results.values())]
    means = [_over(runs, tasks) for runs in results.values()]
    yield ["**mean**", *map(_mean, means)]
    yield [f"beyond {names[0]}", "", *(_mean(mean - means[0], "+") for mean in means[1:])]
    for stage, name in (("pretraining", "pretraining"), ("extraction", "seconds")):
        found = [np.median([getattr(run, name) for run in runs]) for runs in results.values()]
        yield [f"seconds of {stage}", *(f"{seconds:.0f}" for seconds in found)]


def _over(runs: list[Result], tasks: list[str]) -> np.ndarray:
    """(seeds,) mean scores over tasks."""
    return np.array([np.mean([run.scores[task] for task in tasks]) for run in runs])


def _mean(values: np.ndarray, sign: str = "") -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):{sign}.1f} ± {error:.1f}"


def main(words: list[str] | None = None) -> None:
    """Print the table, and write it to ``table.md``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a run with world_model/ and data/")
    parser.add_argument("--out", type=Path, help="default: RUN/studies/<name of the study>")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=10, help="per task, of an evaluation")
    parser.add_argument("--variants", nargs="+", help="some of the study's; all by default")
    parser.add_argument("--extract", default="", help="more settings of extraction, in one word")
    parser.add_argument("--pretrain", default="", help="more settings of pretraining, in one word")
    given = parser.parse_args(words)
    out = given.out or given.run / "studies" / given.study.stem
    try:
        study = Study.read(given.study)
        variants = given.variants or list(study.variants)
        if unknown := set(variants) - study.variants.keys():
            raise PwmError(f"{given.study} has no variant {sorted(unknown)}.")
        more = shlex.split(given.extract), shlex.split(given.pretrain)
        runner = Runner(study, given.run, out, *more, given.episodes)
        text = table(runner.results(variants, given.seeds))
    except (PwmError, Interrupted) as error:
        sys.exit(f"study: {error}")
    (out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
