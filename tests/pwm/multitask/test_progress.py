from __future__ import annotations

import pytest
import torch

from pwm.multitask.progress import LearningProgress
from pwm.multitask.task_losses import TaskLosses

KEEP = torch.tensor(False)


def observe(progress: LearningProgress, *losses: float, skip: bool = False) -> None:
    counts = torch.ones(len(losses))
    progress.observe(TaskLosses(torch.tensor([losses]), counts), torch.tensor(skip))


def test_shares_follow_the_change_of_smoothed_losses_over_a_floor():
    progress = LearningProgress(3, period=2, smoothing=0.5, floor=0.3)
    assert progress.shares([0, 1, 2]).tolist() == pytest.approx([1 / 3] * 3)
    for losses in ((8.0, 1.0, 2.0), (4.0, 1.0, 2.0)):  # smoothed 6, 1, 2
        observe(progress, *losses)
    progress.renew(2)
    assert progress.shares([0, 1, 2]).tolist() == pytest.approx([1 / 3] * 3)
    for losses in ((2.0, 1.0, 4.0), (2.0, 1.0, 4.0)):  # smoothed 4, 3 and 3, 3.5
        observe(progress, *losses)
    assert progress.smoothed.tolist() == pytest.approx([3.0, 1.0, 3.5])
    progress.renew(3)  # not the end of a period
    assert progress.shares([0, 1, 2]).tolist() == pytest.approx([1 / 3] * 3)
    progress.renew(4)
    change = torch.tensor([3.0, 0.0, 1.5])
    wanted = 0.1 + 0.7 * change / change.sum()
    assert progress.shares([0, 1, 2]).tolist() == pytest.approx(wanted.tolist())
    assert progress.shares([0, 1]).tolist() == pytest.approx([0.15 + 0.7, 0.15])


def test_losses_that_do_not_change_give_even_shares_and_skipped_updates_none():
    progress = LearningProgress(2, period=1, smoothing=0.0, floor=0.25)
    for step in (1, 2):
        observe(progress, 1.0, 2.0)
        observe(progress, torch.nan, 9.0, skip=True)
        progress.renew(step)
    assert progress.smoothed.tolist() == [1.0, 2.0]
    assert progress.shares([0, 1]).tolist() == [0.5, 0.5]


def test_a_task_that_comes_in_later_counts_as_an_average_one():
    progress = LearningProgress(3, period=1, smoothing=0.0, floor=0.0)
    for step, losses in ((1, (1.0, 1.0)), (2, (2.0, 4.0))):
        sums = torch.tensor([[*losses, 0.0]])
        progress.observe(TaskLosses(sums, torch.tensor([1.0, 1.0, 0.0])), KEEP)
        progress.renew(step)
    assert progress.shares([0, 1, 2]).tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    ("start", "end", "spans"),
    [
        (0, 10, [(0, 4), (4, 8), (8, 10)]),
        (3, 5, [(3, 4), (4, 5)]),
        (4, 4, []),
        (5, 7, [(5, 7)]),
    ],
)
def test_spans_end_where_periods_do(start, end, spans):
    assert list(LearningProgress(1, 4, 0.9, 0.1).spans(start, end)) == spans
