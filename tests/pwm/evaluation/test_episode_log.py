from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pwm.core.errors import PwmError
from pwm.evaluation.episode_log import EpisodeLog, Outcomes, outcome_key


def outcomes(seed: int, n: int = 2) -> Outcomes:
    rng = np.random.default_rng(seed)
    success = rng.integers(0, 2, (2, n)).astype(float)
    return Outcomes(rng.normal(size=n) * 1e3, *success, 10 * n, rng.uniform(), rng.uniform())


def same(a: Outcomes, b: Outcomes) -> bool:
    return all(np.array_equal(value, vars(b)[name]) for name, value in vars(a).items())


def fill(path: Path, keys: str) -> EpisodeLog:
    log = EpisodeLog(path)
    for key in keys:
        log.add(key, outcomes(ord(key)), {"task": "mw-push", "seeds": (1, 2)})
    return log


def kept(path: Path) -> str:
    log = EpisodeLog(path)
    found = "".join(key for key in "abcd" if key in log)
    assert all(same(log[key], outcomes(ord(key))) for key in found)
    return found


def test_what_was_added_is_there_again_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert same(fill(path, "ab")["b"], outcomes(ord("b")))
    assert kept(path) == "ab"
    fill(path, "c")
    assert kept(path) == "abc"
    assert "a" not in EpisodeLog(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert "d" in fill(None, "d")  # type: ignore[arg-type]


def test_a_line_of_before_does_not_know_the_steps_to_success(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "log")
    known = Outcomes(np.ones(2), np.ones(2), np.ones(2), 7, steps_to_success=np.array([3.0, 4]))
    log.add("now", known, {})
    checksum, _, text = (tmp_path / "log").read_bytes().strip().partition(b" ")
    entry = {k: v for k, v in json.loads(text).items() if k != "steps_to_success"}
    old = json.dumps({**entry, "key": "before"}).encode()
    (tmp_path / "log").write_bytes(
        checksum
        + b" "
        + text
        + b"\n"
        + hashlib.sha256(old).hexdigest()[:16].encode()
        + b" "
        + old
        + b"\n"
    )
    again = EpisodeLog(tmp_path / "log")
    assert again["now"].steps_to_success.tolist() == [3, 4]
    assert again["before"].steps_to_success.tolist() == [-1, -1]
    both = Outcomes.concatenate([again["now"], again["before"]])
    assert both.steps_to_success.tolist() == [3, 4, -1, -1]


def test_a_torn_line_is_written_again_whatever_was_torn_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fill(path, "abc")
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        assert kept(path) == "ab"
    path.write_bytes(whole[: last + 20])
    fill(path, "c")
    assert path.read_bytes() == whole


def test_a_changed_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fill(path, "abc")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    rng = np.random.default_rng(0)
    for _ in range(100):
        at = int(rng.integers(len(lines[0]) - 1, len(lines[0]) + len(lines[1]) - 1))
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        assert kept(path) in ("ac", "c", "a")
        path.write_bytes(whole)


def test_pieces_join_in_order() -> None:
    joined = Outcomes.concatenate([outcomes(1), outcomes(2, 3)])
    np.testing.assert_array_equal(joined.returns[2:], outcomes(2, 3).returns)
    assert (len(joined.returns), joined.steps) == (5, 50)
    seconds = outcomes(1).acting_seconds + outcomes(2, 3).acting_seconds
    assert joined.decision_ms == 1000 * seconds / 50


def test_keys_follow_from_every_fact() -> None:
    keys = {outcome_key(*facts) for facts in ((1, "a"), (1, "b"), (2, "a"), ({"x": 1, "y": 2}, 0))}
    assert len(keys) == 4
    assert outcome_key({"x": 1, "y": 2}) == outcome_key({"y": 2, "x": 1})


def test_a_link_in_the_place_of_the_log_is_refused(tmp_path: Path) -> None:
    """A directory from elsewhere could otherwise have any file cut off and appended to."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "log").symlink_to(tmp_path / "mine")
    with pytest.raises(PwmError, match="is a link"):
        EpisodeLog(tmp_path / "log")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_log_takes_over_what_it_lacks_of_another_and_no_damaged_line(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    fill(one, "a")
    fill(other, "abc")
    lines = other.read_bytes().splitlines(keepends=True)
    other.write_bytes(lines[0] + lines[1] + lines[2].replace(b"returns", b"rEturns") + b"torn")
    log = EpisodeLog(one)
    log.take_over(other)
    assert "b" in log and "c" not in log
    assert one.read_bytes().count(b"\n") == 2
    assert kept(one) == "ab"
    before = one.read_bytes()
    log.take_over(other)
    assert one.read_bytes() == before
