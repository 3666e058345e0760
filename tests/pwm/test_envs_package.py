"""Where pwm finds its environments: in a checkout, beside a user's own ``envs``, and in a wheel."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import envs
import pwm.envs
from pwm.core.errors import PwmError
from pwm.core.suites import get_task

ROOT = Path(__file__).parents[2]
PLAY = (
    "import envs.mine, pwm.envs, gymnasium; env = pwm.envs.make_env('pendulum-swingup', seed=0);"
    "env.reset(); env.step(env.action_space.sample());"
    "print(envs.mine.WORD, pwm.envs.__file__, gymnasium.spec('pwm/walker-run').entry_point)"
)


def beside_a_users_own_envs(tmp_path: Path, *path: Path) -> list[str]:
    """What ``PLAY`` prints where a user's ``envs`` comes first on Python's path."""
    own = tmp_path / "lab" / "envs"
    own.mkdir(parents=True)
    (own / "__init__.py").touch()
    (own / "mine.py").write_text("WORD = 'theirs'\n")
    search = os.pathsep.join(map(str, (own.parent, *path)))
    run = subprocess.run(
        [sys.executable, "-c", PLAY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split()


def test_in_a_checkout_both_names_are_one_package():
    assert pwm.envs is envs
    assert pwm.envs.make_env is envs.make_env


def test_a_users_own_envs_stays_theirs_and_pwm_finds_its_own(tmp_path):
    word, file, entry_point = beside_a_users_own_envs(tmp_path, ROOT)
    assert word == "theirs"
    assert Path(file) == ROOT / "envs" / "__init__.py"
    assert entry_point == "pwm.envs:make_env"


@pytest.mark.slow
def test_a_wheel_adds_no_package_but_pwm_and_plays(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("pwm_worldmodels-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    top = {path.name for path in (tmp_path / "site").iterdir() if path.suffix != ".dist-info"}
    assert top == {"pwm"}
    word, file, entry_point = beside_a_users_own_envs(tmp_path, tmp_path / "site")
    assert word == "theirs"
    assert Path(file) == tmp_path / "site" / "pwm" / "envs" / "__init__.py"
    assert entry_point == "pwm.envs:make_env"


@pytest.mark.parametrize(
    ("task", "module", "missing"),
    [("walker-run", "dmcontrol", "dm_control"), ("mw-push", "metaworld", "metaworld")],
)
def test_without_a_simulator_its_tasks_say_what_to_install(monkeypatch, task, module, missing):
    for name in [n for n in sys.modules if n.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"envs.{module}", raising=False)
    monkeypatch.delattr(envs, module, raising=False)
    with pytest.raises(
        PwmError, match=rf"{task} .* {missing}.* is not installed; pip install 'pwm"
    ):
        envs.make_env(get_task(task))
    assert importlib.import_module("envs") is envs
