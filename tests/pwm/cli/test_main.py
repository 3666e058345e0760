from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from command_lines import SECONDS, filled, in_this_process, make_inputs
from config_mistakes import MISTAKES

import pwm
from pwm.cli.commands import COMMANDS
from pwm.cli.main import config_directory, main
from pwm.core.errors import PwmError

ROOT = Path(pwm.__file__).parent.parent

TRIED_FAST = 4  # of the long table, every so many lines


def _mistakes():
    """The table of the script, most of it marked slow."""
    lines = [row for rows in MISTAKES.values() for row in rows]
    return [
        pytest.param(*row, id=row[0], marks=pytest.mark.slow if number % TRIED_FAST else ())
        for number, row in enumerate(lines)
    ]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(("line", "words"), _mistakes())
def test_a_mistake_gives_one_message_exit_code_1_and_no_files(line, words, inputs, tmp_path):
    outcome = in_this_process(shlex.split(filled(line, inputs)))
    assert outcome.fault(filled(words, inputs), SECONDS) is None, outcome
    assert list(tmp_path.iterdir()) == []


def test_there_are_enough_mistakes():
    assert sum(map(len, MISTAKES.values())) >= 50


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_lists_its_settings_with_defaults(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"pwm {name}" in shown
    assert COMMANDS[name].example in shown
    config = getattr(import_module(COMMANDS[name].module), COMMANDS[name].config)
    assert {field.name for field in fields(config)} <= {
        line.split(":")[0] for line in shown.split("\n")
    }
    required = {"pretrain": "data: ???", "collect": "out: ???", "evaluate": "policy: ???"}
    assert required.get(name, "") in shown


def test_help_mentions_presets_and_meanings(capsys):
    main(["pretrain", "-h"])
    shown = capsys.readouterr().out
    assert "model=1M|5M|19M|48M|317M|1B|tiny" in shown
    assert "batch_size: 1024" in shown
    main(["extract", "--help"])
    shown = capsys.readouterr().out
    assert "extract=bc_then_gradients|offline|paper|small_data|standard" in shown
    assert "detach_actor_input" in shown
    assert "start states per task, drawn once" in shown
    main(["grow", "--help"])
    shown = capsys.readouterr().out
    assert "grow=gpu|mt30|mt80|mt80_seeds|quick" in shown
    assert "collect@collect=agents|agents_gpu|sac_fast" in shown


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
    command = [sys.executable, "-m", "pwm.cli", "collect", "suite=x", "out=y"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("pwm: error: unknown suite or task 'x'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["--help", "collect --help", "collect out=y --cfg job"])
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
    monkeypatch.setattr("pwm.cli.data_command.data_command", stopped)
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


def test_every_preset_holds_settings():
    files = sorted(config_directory().rglob("*.yaml"))
    assert {file.parent.parent for file in files} == {config_directory()}, "in groups alone"
    for file in files:
        content = yaml.safe_load(file.read_text())
        assert set(content) - {"defaults"} or file.parent.name == "launcher", file


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("collect collect=sac_fast out=o", {"behaviour": "sac", "seed": 0}),
        ("extract extract=bc_then_gradients data=d checkpoint=c out=o", {"pool": 16_384}),
        ("quickstart recipe=mixed10 model@pretrain.model=tiny", {"out": "runs/mixed10"}),
        ("quickstart recipe=mt30_gpu", {"out": "runs/mt30_gpu", "seed": 0}),
    ],
)
def test_presets_choose_settings(words, settings, capsys):
    assert main([*words.split(), "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert {name: shown[name] for name in settings} == settings
    if "sac_fast" in words:
        assert shown["sac"]["backend"] == "jax"
    if "bc_then_gradients" in words:
        learner = shown["learner"]
        assert (learner["iterations"], learner["bc"]["warmup_steps"]) == (40, 12_000)
        assert learner["networks"]["actor"] == [256, 128], "those of small_data"
    if "mixed10" in words:
        assert shown["pretrain"]["model"]["mlp_dim"] == 256
        assert shown["extract"]["learner"]["bc"]["weight"] == 0.3


def test_a_block_with_the_name_of_a_group_takes_settings(capsys):
    words = ["collect={workers: 3}", "extract={pool: 7, learner: {horizon: 5}}"]
    assert main(["grow", *words, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["collect"]["workers"], shown["collect"]["seed"]) == (3, 0)
    assert (shown["extract"]["pool"], shown["extract"]["learner"]["horizon"]) == (7, 5)


def test_a_setting_with_the_name_of_another_command_s_group(capsys):
    assert main(["grow", "grow=quick", "--cfg", "job"]) == 0
    capsys.readouterr()
    assert main(["report", "run=a", "grow=b", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["grow"] == "b"


def test_every_command_has_a_config_and_its_function():
    for command in COMMANDS.values():
        module = import_module(command.module)
        assert callable(getattr(module, command.function))
        assert getattr(module, command.config).__doc__


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pretrain -m data=d out=o/${lr} lr=1e-3,-5", "lr=-5.0 must be at least 0"),
        ("evaluate -m policy=p out=o/${seed} seed=1,-2", "seed=-2 must be from 0"),
        ("pretrain -m data=d out=o lr=1e-3,1e-2", "two runs of this sweep would write into out=o"),
    ],
)
def test_all_runs_of_a_sweep_are_checked_before_the_first(line, words, tmp_path, capsys):
    assert main(line.split()) == 1
    assert words in capsys.readouterr().err  # and not that there is no d and no p
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("lr=1,5", "give one, or one run for each"),
        ("data=a,b", "text with a comma as"),
    ],
)
def test_of_several_values_only_what_the_setting_takes_is_offered(word, form, capsys):
    assert main(["pretrain", "data=d", "out=o", word]) == 1
    assert form in " ".join(capsys.readouterr().err.split())
