"""The pages' commands run as they are written, and say what the pages say they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "Use what you downloaded",
    "docs/published-files.md": "",
    "docs/your-own-data.md": "",
}


@dataclass
class Command:
    """A command as a page shows it, and the lines that the page shows below it."""

    line: str
    output: list[str] = field(default_factory=list)

    def run(self, directory: Path) -> str:
        """Everything that the command prints, in a directory with the checkout's tests."""
        line = re.sub(r"^pwm ", f"{sys.executable} -m pwm.cli ", self.line)
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
        refused = any("pwm: error:" in shown for shown in self.output)
        assert result.returncode == int(refused), f"{self.line}\n{result.stdout}"
        return result.stdout


def words(text: str) -> set[str]:
    """Without numbers, which differ from machine to machine, and the bars of histograms."""
    return set(re.findall(r"[A-Za-z][A-Za-z_/+-]{2,}", text))


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and the content of every fenced block."""
    return iter(re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE))


def commands(block: str) -> list[Command]:
    """The commands of a block in which they begin with a dollar."""
    found: list[Command] = []
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        if line.lstrip().startswith("$ "):
            found.append(Command(line.lstrip().removeprefix("$ ")))
        elif found:
            found[-1].output.append(line)
    return found


@pytest.mark.parametrize(("name", "section"), PAGES.items())
def test_every_command_does_what_its_page_shows(name, section, tmp_path):
    page = (ROOT / name).read_text()
    if section:
        page = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    ran = 0
    for language, content in blocks(page):
        if language == "yaml":
            (tmp_path / "pendulum.yaml").write_text(content)
        elif language == "python" and content.startswith("# record.py\n"):
            (tmp_path / "record.py").write_text(content)
        elif language in ("", "console"):
            for command in commands(content):
                printed = command.run(tmp_path)
                missing = words("\n".join(command.output)) - words(printed)
                assert not missing, f"{command.line}\nshown, not printed: {missing}\n{printed}"
                ran += 1
    assert ran >= 4
