from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pwm
from pwm.cli import COMMANDS, config_directory, main
from pwm.errors import PwmError

ROOT = Path(pwm.__file__).parent.parent

# A command line, and words that its one message must contain.
MISTAKES = [
    ("pretrian data=x", "did you mean 'pretrain'"),
    ("frobnicate", "The commands are"),
    ("--hlep", "unknown command"),
    # what must be given
    ("pretrain", "pretrain needs data="),
    ("pretrain data=x", "pretrain needs out="),
    ("extract data=x out=y", "extract needs checkpoint="),
    ("evaluate policy=x", "evaluate needs out="),
    ("collect suite=quick", "collect needs out="),
    ("report", "report needs run="),
    # names of settings
    ("pretrain data=x out=y stepz=3", "did you mean steps="),
    ("pretrain data=x out=y model.mlp_dims=3", "did you mean model.mlp_dim="),
    ("extract learner.horizont=3", "did you mean learner.horizon="),
    ("quickstart pretrain.stepz=1", "did you mean pretrain.steps="),
    ("pretrain data=x out=y --steps 3", "unknown option '--steps'"),
    # values
    ("pretrain data=x out=y steps=many", "could not be converted to Integer"),
    ("pretrain data=x out=y steps=1.5", "bad value for steps"),
    ("pretrain data=x out=y steps=null", "bad value for steps"),
    ("pretrain data=x out=y lr=[1,2]", "bad value for lr"),
    ("pretrain data=x out=y normalize_obs=perhaps", "not a valid bool"),
    ("pretrain data=x out=y horizon.lengths=4", "bad value for horizon.lengths"),
    ("pretrain data=x out=y horizon=4", "bad value for horizon"),
    ("pretrain data=x out=y steps=${nothing}", "nothing"),
    ("pretrain data=x out=y device=gpu", "unknown device 'gpu'"),
    ("extract checkpoint=x data=y out=z learner.networks.actor=wide", "learner.networks.actor"),
    ("extract checkpoint=x data=y out=z learner.iterations=0", "iterations=0"),
    ("evaluate policy=x out=y episodes=0", "episodes"),
    ("evaluate policy=x out=y baselines=[rand]", "unknown baseline rand"),
    ("evaluate policy=x out=y baselines=[bc]", "give data=DIR"),
    ("evaluate policy=x out=y baselines=random", "bad value for baselines"),
    ("evaluate policy=x out=y tasks=[walker-rum]", "did you mean 'walker-run'"),
    ("evaluate policy=x out=y seed=-5", "seed=-5"),
    ("evaluate policy=x out=y workers=0", "workers=0"),
    ("evaluate policy=x out=y best=7", "best=7"),
    ("collect out=x suite=mt31", "did you mean 'mt30'"),
    ("collect out=x suite=quick episodes=-1", "episodes=-1"),
    ("collect out=x suite=quick episodes=lots", "'lots'"),
    ("collect out=x suite=quick behaviour=lazy", "unknown behaviour 'lazy'"),
    ("collect out=x suite=walker-run behaviour=scripted", "no scripted controller"),
    ("quickstart seed=one", "bad value for seed"),
    ("quickstart out=x evaluate.episodes=0", "episodes"),
    ("quickstart out=x extract.learner.horizon=0", "horizon=0"),
    ("quickstart out=x pretrain.batch_size=0 pretrain.log_every=0", "log_every=0"),
    # syntax and presets
    ("pretrain data=x out=y steps", "cannot read 'steps'"),
    ("pretrain data=x out=y [", "cannot read '['"),
    ("pretrain data=a=b out=y", "cannot read 'data=a=b'"),
    ("extract tasks=[walker-run checkpoint=x", "cannot read 'tasks=[walker-run'"),
    ("pretrain data=x out=y model=7M", "choose from 19M, 1M, 317M, 48M, 5M, tiny"),
    ("extract checkpoint=x data=y out=z extract=papr", "paper"),
    ("quickstart recipe=slow", "quick"),
    # files
    ("pretrain data=nowhere out=y", "no episode store"),
    ("pretrain data= out=y", "no episode store"),
    ("extract checkpoint=nowhere data=y out=z", "not a checkpoint"),
    ("evaluate policy=nowhere out=y", "holds no policy"),
    ("report run=nowhere", "nowhere"),
    ("data verify nowhere", "no episode store"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(("line", "words"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_gives_one_message_exit_code_1_and_no_files(line, words, tmp_path, capsys):
    assert main(line.split(" ")) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("pwm: error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 25


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_lists_its_settings_with_defaults(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"pwm {name}" in shown
    assert COMMANDS[name].example in shown
    settings = yaml.safe_load((config_directory() / f"{name}.yaml").read_text())
    assert set(settings) - {"defaults", "hydra"} <= {
        line.split(":")[0] for line in shown.split("\n")
    }
    required = {"pretrain": "data: ???", "collect": "out: ???", "evaluate": "policy: ???"}
    assert required.get(name, "") in shown


def test_help_mentions_presets_and_meanings(capsys):
    main(["pretrain", "-h"])
    shown = capsys.readouterr().out
    assert "model=19M|1M|317M|48M|5M|tiny" in shown
    assert "batch_size: 1024" in shown
    main(["extract", "--help"])
    shown = capsys.readouterr().out
    assert "extract=paper" in shown
    assert "detach_actor_input" in shown
    assert "start states a task, drawn once" in shown


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_overview_lists_every_command(words, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.summary in shown
    assert "data" in shown


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pwm {pwm.__version__}\n"


def test_cfg_job_prints_the_resolved_settings_and_runs_nothing(tmp_path, capsys):
    assert main(["pretrain", "data=x", "out=y", "model=1M", "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["data"] == "x"
    assert shown["model"]["mlp_dim"] == 384
    assert list(tmp_path.iterdir()) == []


def test_debug_gives_the_traceback():
    with pytest.raises(PwmError, match="no episode store"):
        main(["pretrain", "data=x", "out=y", "--debug"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pwm.cli", "--debug", "data", "info", "nowhere"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "data_command.py" in result.stderr


def test_the_process_prints_one_line_and_exits_with_1():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pwm.cli", "pretrain", "data=x", "out=y"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("pwm: error: x is no episode store")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["--help", "extract --help", "pretrain data=x out=y --cfg job"])
def test_a_reader_that_has_seen_enough_is_no_error(line):
    end, pipe = os.pipe()
    os.close(end)
    command = [sys.executable, "-m", "pwm.cli", *line.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, env=environment, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(pipe)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.usefixtures("keyboard_interrupts")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_away_from_safe_points_ends_the_command_in_order(
    signum, code, monkeypatch, capsys
):
    unwound = []

    def stopped(words):
        try:
            signal.raise_signal(signum)
        finally:
            unwound.append(words)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("pwm.data_command.data_command", stopped)
    assert main(["data", "info", "x"]) == code
    assert unwound == [["info", "x"]]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the same command goes on from there" in said
    assert signal.getsignal(signal.SIGTERM) == before


def test_arguments_default_to_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pwm", "--version"])
    assert main() == 0
    before = ["pwm", "pretrain", "data=x", "out=y"]
    monkeypatch.setattr(sys, "argv", before)
    assert main() == 1
    assert sys.argv == before


def test_every_command_has_a_config_and_its_function():
    import importlib

    for name, command in COMMANDS.items():
        module = importlib.import_module(command.module)
        assert callable(getattr(module, command.function))
        assert (config_directory() / f"{name}.yaml").is_file()
        assert getattr(module, command.config).__doc__
