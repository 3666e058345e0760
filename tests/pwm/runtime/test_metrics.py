from __future__ import annotations

import json
import sys
import time

import pytest
import torch

from pwm.core.errors import PwmError
from pwm.runtime.metrics import MetricsLogger, read_metrics
from pwm.runtime.wandb_run import require_wandb


def write(directory, first: int, end: int) -> None:
    logger = MetricsLogger(directory, first)
    for step in range(first + 1, end + 1):
        logger.log(step, {"loss": torch.tensor(step / 2), "lr": 0.1})
    logger.close()


def test_lines_hold_the_step_and_plain_numbers(tmp_path):
    write(tmp_path, 0, 3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": step, "loss": step / 2, "lr": 0.1} for step in (1, 2, 3)
    ]
    assert read_metrics(tmp_path / "metrics.jsonl") == [json.loads(line) for line in lines]


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    write(tmp_path, 0, 7)
    write(tmp_path, 4, 9)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 10))


def test_beginning_anew_drops_everything(tmp_path):
    write(tmp_path, 0, 7)
    write(tmp_path, 0, 2)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_line_that_a_kill_left_unfinished_is_no_obstacle(tmp_path):
    write(tmp_path, 0, 3)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(file)] == [1, 2, 3]
    write(tmp_path, 3, 5)
    assert [line["step"] for line in read_metrics(file)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 40 + b"\n", b"\xff\n", b"5\n", b"[]\n", b'{"loss": 1}\n']
)
def test_reading_ends_at_what_a_power_failure_left(rubbish, tmp_path):
    """Lines after the last flush may be anything; a checkpoint never lies behind them."""
    write(tmp_path, 0, 3)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + rubbish + b'{"step": 9, "loss": 1.0}\n')
    assert [line["step"] for line in read_metrics(file)] == [1, 2, 3]
    write(tmp_path, 3, 5)
    assert [line["step"] for line in read_metrics(file)] == [1, 2, 3, 4, 5]


def test_a_flush_reaches_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("pwm.runtime.metrics.os.fsync", synced.append)
    logger = MetricsLogger(tmp_path)
    logger.log(1, {"loss": 1.0})
    del synced[:]
    logger.flush()
    assert len(synced) == 1
    logger.close()


def test_a_kill_while_old_lines_are_dropped_loses_none(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    write(tmp_path, 0, 5)
    with monkeypatch.context() as patch:
        patch.setattr("pwm.core.files.os.replace", die)
        with pytest.raises(Killed):
            MetricsLogger(tmp_path, 3)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 5


def test_no_file_reads_as_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_lines_can_be_read_while_the_run_goes_on(tmp_path):
    logger = MetricsLogger(tmp_path)
    logger.log(1, {"loss": 1.0})
    logger.flush()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    logger.close()


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, 6)
    time.sleep(1.1)  # event files are ordered by the second they were made in
    write(tmp_path, 3, 5)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert {(e.step, e.value) for e in board.Scalars("loss")} == {(s, s / 2) for s in range(1, 6)}


def test_asking_for_wandb_without_it_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PwmError, match=r"pip install 'pwm-worldmodels\[wandb\]'"):
        MetricsLogger(tmp_path, wandb_project="mine")


def test_wandb_gets_every_line_by_a_switch(tmp_path, monkeypatch):
    class Run:
        def __init__(self, **settings: object) -> None:
            self.settings, self.lines, self.finished = settings, [], False

        def log(self, values: dict, step: int) -> None:
            self.lines.append((step, values))

        def finish(self) -> None:
            self.finished = True

    class Wandb:
        init = Run

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    logger = MetricsLogger(tmp_path, 0, "mine", {"learner": {"horizon": 16}})
    logger.log(5, {"loss": torch.tensor(2.0)})
    logger.close()
    run = logger._wandb
    assert run.settings["project"] == "mine"
    assert run.settings["config"] == {"learner": {"horizon": 16}}
    assert run.lines == [(5, {"loss": 2.0})]
    assert run.finished
    again = MetricsLogger(tmp_path, 5, "mine")
    again.close()
    assert again._wandb.settings["id"] == run.settings["id"]
    assert (run.settings["resume"], len(run.settings["id"])) == ("allow", 16)


def test_wandb_without_a_key_is_a_sentence_before_anything_is_read(monkeypatch):
    class Wandb:
        @staticmethod
        def login() -> None:
            raise RuntimeError("No API key configured.")

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    with pytest.raises(PwmError, match=r"No API key configured.*WANDB_API_KEY.*WANDB_MODE=offline"):
        require_wandb("mine")
    require_wandb(None)


def test_a_wandb_run_that_cannot_start_is_a_sentence(tmp_path, monkeypatch):
    class Wandb:
        @staticmethod
        def init(**settings: object) -> None:
            raise RuntimeError("Run initialization has timed out")

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    with pytest.raises(PwmError, match=r"timed out.*WANDB_MODE=offline"):
        MetricsLogger(tmp_path, 0, "mine")
