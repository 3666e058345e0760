"""A study on made-up data: every kind of variant, gone on with, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import study as command
import yaml
from study import Result, Study, main, table

from pwm.cli.main import main as pwm
from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.runtime.run_dir import read_run

STUDIES = Path(command.__file__).parent / "studies"
STUDY = {
    "tasks": ["pendulum-swingup"],
    "base": "device=cpu pool=32 learner.batch_size=8 learner.horizon=2 "
    "learner.critic.batches=2 learner.networks.actor=[8] learner.networks.critic=[8] "
    "learner.iterations=500",
    "world_models": {"second one": "seed=1", "longer": "steps=30"},
    "variants": {
        "plain": None,
        "cloning, H 3": "learner.bc.weight=0.3 learner.horizon=3",
        "ensemble": {"world_model": "longer", "ensemble": ["second one"]},
    },
}


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory) -> Path:
    """A run with data and a world model of them."""
    run = tmp_path_factory.mktemp("run")
    (run / "data").symlink_to(toy.data)
    words = toy.pretrain(run / "world_model", f"data={run}/data", "horizon.lengths=[2,3]")
    assert pwm(words) == 0
    return run


def write(path: Path, **changes) -> str:
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return str(path)


@pytest.mark.slow
def test_a_study_pretrains_extracts_and_compares(run, tmp_path, capsys):
    words = [
        write(tmp_path / "few.yaml"), "--run", str(run), "--seeds", "1", "--episodes", "1",
        "--extract", "learner.iterations=5", "--pretrain", "batch_size=16 steps=9",
    ]  # fmt: skip
    main(words)
    out = run / "studies" / "few"
    printed = capsys.readouterr().out
    assert (out / "table.md").read_text() in printed
    header, _, task, *_ = (out / "table.md").read_text().splitlines()
    assert header == "| task | plain | cloning, H 3 | ensemble |"
    assert task.startswith("| pendulum-swingup | ")

    def settings(of: str) -> dict:
        return yaml.safe_load((out / of / "config.yaml").read_text())

    before = yaml.safe_load((run / "world_model" / "config.yaml").read_text())
    for name, seed, steps in (("second_one", 1, 9), ("longer", 0, 30)):
        model = settings(f"world_models/{name}")
        assert (model["seed"], model["steps"], model["batch_size"]) == (seed, steps, 16)
        assert (model["model"], model["horizon"]) == (before["model"], before["horizon"])
    plain, ensemble = (settings(f"{v}/seed_0/policies") for v in ("plain", "ensemble"))
    assert plain["learner"]["iterations"] == 5
    assert plain["ensemble"] == []
    assert settings("cloning_H_3/seed_0/policies")["learner"]["horizon"] == 3
    assert ensemble["checkpoint"] == str(out / "world_models" / "longer")
    assert ensemble["ensemble"] == [str(out / "world_models" / "second_one")]

    started = read_run(out / "plain" / "seed_0" / "policies")["started"]
    main([*words, "--variants", "plain", "cloning, H 3"])
    assert (out / "table.md").read_text().startswith("| task | plain | cloning, H 3 |\n")
    assert read_run(out / "plain" / "seed_0" / "policies")["started"] == started


def test_the_table_pairs_seeds():
    def result(*scores: float) -> Result:
        return Result(dict(zip(("mw-reach", "walker-run"), scores, strict=True)), 7.4, 31.0)

    found = {"plain": [result(10, 20), result(30, 40)], "more": [result(12, 22), result(34, 44)]}
    assert table(found).splitlines() == [
        "| task | plain | more |",
        "| --- | --- | --- |",
        "| mw-reach | 20.0 ± 10.0 | 23.0 ± 11.0 |",
        "| walker-run | 30.0 ± 10.0 | 33.0 ± 11.0 |",
        "| mean, metaworld | 20.0 ± 10.0 | 23.0 ± 11.0 |",
        "| mean, dmcontrol | 30.0 ± 10.0 | 33.0 ± 11.0 |",
        "| **mean** | 25.0 ± 10.0 | 28.0 ± 11.0 |",
        "| beyond plain |  | +3.0 ± 1.0 |",
        "| seconds of pretraining | 31 | 31 |",
        "| seconds of extraction | 7 | 7 |",
    ]


@pytest.mark.parametrize("name", [file.name for file in STUDIES.glob("*.yaml")])
def test_shipped_studies_are_of_known_tasks_and_world_models(name):
    shipped = Study.read(STUDIES / name)
    assert get_suite(shipped.tasks).names == tuple(shipped.tasks)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": {"a": {"world_model": "none such"}}}, "names the world models"),
        ({"variants": {"a": {"chekpoint": "b"}}}, "malformed"),
        ({"tusks": []}, "malformed"),
    ],
)
def test_mistakes_in_a_study_are_explained(changes, words, tmp_path):
    with pytest.raises(PwmError, match=words):
        Study.read(Path(write(tmp_path / "study.yaml", **changes)))


def test_a_run_without_its_settings_is_refused(tmp_path):
    study = write(tmp_path / "study.yaml")
    with pytest.raises(SystemExit, match="needs a world model of pwm pretrain"):
        main([study, "--run", str(tmp_path)])
    with pytest.raises(SystemExit, match="no variant"):
        main([study, "--run", str(tmp_path), "--variants", "fast"])
