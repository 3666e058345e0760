from __future__ import annotations

import io

import pytest
from rich.console import Console

from pwm.core import progress


@pytest.fixture
def log(monkeypatch):
    """A log file in the place of the terminal, and a clock that is set."""
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, width=40))
    return file


def lines(log: io.StringIO) -> list[str]:
    return [line for line in log.getvalue().splitlines() if " so far" in line]


def test_a_log_gets_a_line_of_a_stage_that_goes_on_now_and_then(log, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar() as bars:
        bar = bars.add_task("pretrain", total=2000, note="")
        for step in range(1, 961):
            now[0] += 0.125
            bars.update(bar, completed=step, note="loss 0.0257 + 2.993 [a b]")
        assert len(lines(log)) == 4  # 120 s
        first = lines(log)[0]
        assert first.startswith("pretrain 240/2,000")
        assert first.endswith("loss 0.0257 + 2.993 [a b]")
        other = bars.add_task("evaluate", total=None, note="")
        now[0] += 31
        bars.advance(other, 3)
    assert lines(log)[-1].startswith("evaluate 3, ")


def test_a_terminal_gets_a_bar_alone(log, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, force_terminal=True))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
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
