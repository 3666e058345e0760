"""The pages' commands run as they are written, and say what the pages say they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented import Command, blocks, pwm_lines, session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
SHOWN = ("docs/published-files.md", "docs/your-own-data.md")
"""Pages whose commands stand with their output."""
PYTHON = ("README.md", "docs/tour.md")
"""Pages whose Python blocks run in a checkout as they stand."""
SERVED = "docs/serving.md"
"""A page whose Python blocks ask the server that its first command starts."""


def run(command: Command, directory: Path) -> str:
    """Everything that a command prints, in a directory with the checkout's tests."""
    line = re.sub(r"^pwm ", f"{sys.executable} -m pwm.cli ", command.line)
    line = re.sub(r"^python ", f"{sys.executable} ", line)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
        "MINARI_DATASETS_PATH": str(directory / "minari"),
    }
    result = subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    refused = any("pwm: error:" in shown for shown in command.output)
    assert result.returncode == int(refused), f"{command.line}\n{result.stdout}"
    return result.stdout


def words(text: str) -> set[str]:
    """Without numbers, which differ from machine to machine, and the bars of histograms."""
    return set(re.findall(r"[A-Za-z][A-Za-z_/+-]{2,}", text))


@pytest.mark.parametrize("name", SHOWN)
def test_every_command_does_what_its_page_shows(name, tmp_path):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    ran = 0
    for language, content in blocks((ROOT / name).read_text()):
        if language == "yaml":
            (tmp_path / "pendulum.yaml").write_text(content)
        elif language == "python" and content.startswith("# record.py\n"):
            (tmp_path / "record.py").write_text(content)
        elif language in ("", "console"):
            for command in session(content):
                printed = run(command, tmp_path)
                missing = words("\n".join(command.output)) - words(printed)
                assert not missing, f"{command.line}\nshown, not printed: {missing}\n{printed}"
                ran += 1
    assert ran >= 4


@pytest.mark.parametrize("name", PYTHON)
def test_python_of_a_page_runs_in_a_checkout(name):
    programs = [content for language, content in blocks((ROOT / name).read_text())
                if language == "python"]  # fmt: skip
    assert programs
    for program in programs:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)


def test_clients_of_a_server_get_what_their_page_shows():
    page = (ROOT / SERVED).read_text()
    (line,) = pwm_lines(page)
    command = [sys.executable, "-m", "pwm.cli", *line.split()[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            assert b"Serving" in server.stderr.readline()
            programs = [text for language, text in blocks(page) if language == "python"]
            for program in programs:
                shown = subprocess.run(
                    [sys.executable, "-c", program], cwd=ROOT, env=environment, check=True,
                    capture_output=True, text=True,
                ).stdout  # fmt: skip
                assert "walker-walk" in shown or f"```\n{shown}```" in page
        finally:
            server.terminate()
    assert len(programs) == 2


def test_the_readme_s_policy_is_evaluated_as_shown(tmp_path):
    (line,) = (line for line in pwm_lines((ROOT / "README.md").read_text())
               if "policy=checkpoints/" in line)  # fmt: skip
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    assert "walker-walk" in run(Command(f"{line} baselines=[]"), tmp_path)
