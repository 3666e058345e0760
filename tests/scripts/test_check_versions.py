"""One version is named everywhere."""

from __future__ import annotations

import shutil

import check_versions
import pytest


def test_every_place_names_the_same_version(capsys):
    assert check_versions.main([]) == 0
    assert set(check_versions.named_versions()) == {
        "pyproject.toml",
        "pwm/__init__.py",
        "CITATION.cff",
        "CHANGELOG.md",
    }


def test_a_tag_must_be_the_version(capsys):
    version = check_versions.named_versions()["pyproject.toml"]
    assert check_versions.main([f"v{version}"]) == 0
    assert check_versions.main([f"v{version}1"]) == 1


@pytest.mark.parametrize("place", ["pwm/__init__.py", "CITATION.cff", "CHANGELOG.md"])
def test_a_place_that_was_forgotten_is_found(place, tmp_path, capsys):
    (tmp_path / "pwm").mkdir()
    for name in check_versions.named_versions():
        shutil.copy(check_versions.ROOT / name, tmp_path / name)
    version = check_versions.named_versions()["pyproject.toml"]
    assert check_versions.main([], tmp_path) == 0
    text = (tmp_path / place).read_text().replace(version, "9.9.9", 1)
    (tmp_path / place).write_text(text)
    assert check_versions.main([], tmp_path) == 1
    assert f"9.9.9        {place}" in capsys.readouterr().out
