from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from pwm.core import progress


@pytest.fixture
def log(monkeypatch):
    """A log file in the place of the terminal."""
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", progress._Console(file=file, width=40))
    return file


def lines(log: io.StringIO) -> list[str]:
    return [line for line in log.getvalue().splitlines() if " so far" in line]


def wait_for(condition) -> None:
    until = time.monotonic() + 20
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    assert condition()


def test_a_log_gets_lines_of_what_was_worked_on_last_also_in_a_step_that_takes_long(
    log, monkeypatch
):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.005)
    with progress.progress_bar() as bars:
        bar = bars.add_task("pretrain", total=2000, note="")
        wait_for(lambda: lines(log))
        assert lines(log)[0].startswith("pretrain 0/2,000")
        bars.update(bar, completed=240, note="loss 0.0257 + 2.993 [a b]")
        told = len(lines(log))
        wait_for(lambda: len(lines(log)) >= told + 3)  # no further step is needed
        assert lines(log)[-1].startswith("pretrain 240/2,000")
        assert lines(log)[-1].endswith("loss 0.0257 + 2.993 [a b]")
        other = bars.add_task("evaluate", total=None, note="")
        bars.advance(other, 3)
        wait_for(lambda: lines(log)[-1].startswith("evaluate 3, "))
        bars.update(bar, completed=2000)
        told = len(lines(log))
        time.sleep(0.05)
        assert len(lines(log)) <= told + 1  # one that is finished has no more to tell


def test_a_stage_without_a_bar_says_that_it_goes_on(log, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    with progress.never_silent("pretrain"):
        for _ in range(40):
            time.sleep(0.02)
            progress.console.print("a line")
        assert not lines(log)  # as long as something is printed
        wait_for(lambda: lines(log))
    assert lines(log)[0].startswith("pretrain goes on, 0:00:0")


def test_of_a_stage_with_a_bar_the_bar_speaks(log, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    with progress.never_silent("pretrain"), progress.progress_bar() as bars:
        bars.advance(bars.add_task("reading", total=20, note=""))
        wait_for(lambda: len(lines(log)) == 2)
    assert [line.split()[0] for line in lines(log)] == ["reading", "reading"]


def test_what_was_silent_before_a_bar_counts(log):
    progress.console.last = begun = time.monotonic() - 60
    next(progress._silences(threading.Event(), 60.0))
    assert time.monotonic() - begun < 60 + 30


def test_a_terminal_gets_a_bar_alone(log, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, force_terminal=True))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.001)
    with progress.progress_bar() as bars:
        bars.advance(bars.add_task("pretrain", total=20, note=""))
    assert not lines(file)
    assert "1/20" in file.getvalue()


def test_a_rate_that_is_begun_anew_forgets_the_steps_before_and_not_the_elapsed_time(
    log, monkeypatch
):
    """Ten steps a second, a minute of compiling, and then a hundred steps a second."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bars = progress.progress_bar()
    bars.get_time = lambda: now[0]
    bar = bars.add_task("extract", total=1000, note="loss")
    for step, seconds in ((1, 0.1), (2, 0.1), (3, 60.0)):
        now[0] += seconds
        bars.update(bar, completed=step)
    progress.forget_rate(bars, bar)
    for step in range(4, 9):
        now[0] += 0.01
        bars.update(bar, completed=step)
    (task,) = bars.tasks
    assert task.speed == pytest.approx(100)
    assert (task.completed, task.total, task.fields["note"]) == (8, 1000, "loss")
    assert task.elapsed == pytest.approx(60.25)
