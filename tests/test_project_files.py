"""The files that services read: workflows, hooks, citation; what they name exists."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_continuous_integration_covers_every_python_that_pwm_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest, beyond = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == [
        f"3.{minor}" for minor in range(lowest, beyond)
    ]
    assert {"run": ".ci/run"} in jobs["check"]["steps"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_exists(workflow):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in (shlex.split(step["run"]) for step in steps(workflow) if "run" in step):
        if words[0] == "make":
            assert set(words[1:]) <= set(targets)
        for word in words:
            if word.endswith(".py") or word.startswith(".ci/"):
                assert (ROOT / word).is_file()


def test_only_the_publishing_jobs_may_write():
    for workflow in WORKFLOWS:
        content = yaml.safe_load(workflow.read_text())
        assert content["permissions"] == {"contents": "read"}
        for name, job in content["jobs"].items():
            assert name == "publish" or "permissions" not in job


def test_hooks_before_a_commit_are_those_of_make_lint():
    lint = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    in_make = {line.split("/", 1)[1].split()[0:2][-1] for line in lint[1].splitlines()}
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    in_hooks = {hook["entry"].split("/", 2)[2].split()[0:2][-1] for hook in local["hooks"]}
    assert in_make == in_hooks
    assert len(in_hooks) == 6


def test_the_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == "MIT"
    page = (ROOT / "README.md").read_text()
    assert all(paper["url"] in page for paper in citation["references"])
