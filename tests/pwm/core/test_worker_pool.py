from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jobs
import psutil
import pytest

from pwm.core.errors import PwmError
from pwm.core.worker_pool import Job, WorkerPool

PARTS = ("part one", "part two")


def job(function: Callable[..., Any], *arguments: Any) -> Job:
    return Job(function, arguments, PARTS)


def run(pool: WorkerPool, jobs: Sequence[Job], answer: Any = None) -> list[Any]:
    """Results in the order of the jobs."""
    waiting = iter(jobs)
    found = dict(pool.run(lambda worker: next(waiting, None), answer))
    return [found[job] for job in jobs]


def test_every_job_is_done_once_by_as_many_processes_as_there_are_jobs_for() -> None:
    before = set(psutil.Process().children())
    with WorkerPool(3, timeout=60, max_faults=1, ahead=2) as pool:
        assert run(pool, [job(jobs.square, 4)]) == [16]
        assert len(pool._processes) == 1
        assert run(pool, [job(jobs.square, n) for n in range(20)]) == [n**2 for n in range(20)]
        workers = set(run(pool, [job(jobs.live_slowly, 0.3)] + [job(jobs.whose)] * 5)[1:])
        assert os.getpid() not in workers
        assert len(pool._processes) == 3
        assert run(pool, [job(jobs.threads)]) == ["1"]
        assert run(pool, []) == []
    assert pool.report() is None
    left = set(psutil.Process().children()) - before
    assert not [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]


def test_workers_that_die_hang_or_fail_are_replaced_and_all_is_done(tmp_path: Path) -> None:
    said: list[str] = []
    with WorkerPool(2, timeout=3, max_faults=3, ahead=2, notify=said.append) as pool:
        wanted = [job(jobs.square, n) for n in range(4)]
        for kind, times in (("died", 2), ("hung", 1), ("failed", 2)):
            wanted.append(job(jobs.fault, kind, str(tmp_path / kind), times))
            wanted.append(job(jobs.square, 7))
        assert run(pool, wanted) == [0, 1, 4, 9, "died", 49, "hung", 49, "failed", 49]
    assert pool.faults == {"died": 2, "hung": 1, "failed": 2}
    assert "5 (2 died, 2 failed, 1 hung)" in (pool.report() or "")
    assert len(said) == 5
    assert any("exit code -9" in sentence for sentence in said)
    assert any("no sign of life for 3 s" in sentence for sentence in said)
    assert any("ZeroDivisionError: the sky fell" in sentence for sentence in said)
    assert all("part two" in sentence for sentence in said)


def test_a_slow_job_that_says_it_lives_is_left_alone() -> None:
    with WorkerPool(1, timeout=2, max_faults=1) as pool:
        assert run(pool, [job(jobs.live_slowly, 3.0)]) == ["done"]
    assert not pool.faults


def test_a_job_that_always_fails_is_given_up_by_name(tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    with (
        pytest.raises(PwmError, match=r"died at part two .*exit code -9.*fault 2 of max_faults=2"),
        WorkerPool(1, timeout=60, max_faults=2) as pool,
    ):
        run(pool, [job(jobs.fault, "died", flag, 9)])
    assert Path(flag).read_text() == "xx"


def test_a_mistake_is_not_tried_again() -> None:
    with (
        pytest.raises(PwmError, match=r"^part two: that cannot work\.$"),
        WorkerPool(1, timeout=60, max_faults=5) as pool,
    ):
        run(pool, [job(jobs.mistake)])
    assert not pool.faults


def test_questions_that_wait_are_answered_together_and_do_not_count_as_hanging(
    tmp_path: Path,
) -> None:
    batches: list[int] = []

    def answer(questions: Sequence[tuple[Job, int]]) -> list[int]:
        batches.append(len(questions))
        time.sleep(2.5 if len(batches) == 1 else 0.02)
        return [number**2 for _, number in questions]

    with WorkerPool(3, timeout=2, max_faults=1, ahead=2) as pool:
        everyone = {n: job(jobs.meet, str(tmp_path), n, pool.workers) for n in range(pool.workers)}
        assert len(list(pool.run(lambda worker: everyone.pop(worker, None)))) == pool.workers
        wanted = [job(jobs.add_up, [n, n + 1]) for n in range(6)]
        found = run(pool, wanted, answer)
    assert found == [[n**2, (n + 1) ** 2] for n in range(6)]
    assert sum(batches) == 12
    assert max(batches) >= 2  # while the first waits for its answer, the other two ask
    assert not pool.faults


def test_a_job_whose_worker_died_asks_again_from_the_beginning(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(questions: Sequence[tuple[Job, int]]) -> list[int]:
        asked.extend(number for _, number in questions)
        return [10 * number for _, number in questions]

    with WorkerPool(1, timeout=60, max_faults=2) as pool:
        assert run(pool, [job(jobs.ask_then_die, str(tmp_path / "flag"))], answer) == [[10, 20]]
    assert asked == [1, 1, 2]


def test_workers_are_gone_when_the_caller_leaves_in_the_middle() -> None:
    with WorkerPool(1, timeout=60, max_faults=1) as pool:
        run(pool, [job(jobs.whose)])
        worker = psutil.Process(pool._processes[0].process.pid)
        next(pool.run(_endless))
    assert not worker.is_running()


def _endless(worker: int) -> Job:
    return job(jobs.square, 2)


def test_workers_end_when_the_caller_is_killed() -> None:
    code = (
        "import os, signal, jobs;"
        "from pwm.core.worker_pool import Job, WorkerPool;"
        "pool = WorkerPool(2, 60, 1);"
        "quick, slow = (Job(f, (60,), ('x',)) for f in (jobs.square, jobs.live_slowly));"
        "work = iter([quick, quick, slow]);"
        "results = pool.run(lambda worker: next(work, None));"
        "next(results);"
        "print(*[p.process.pid for p in pool._processes], flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its caller"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_questions_that_are_answered_together_wait_for_the_slowest(tmp_path: Path) -> None:
    """Also for one that died and is there again; a long answer is no hang."""
    asked: list[list[Any]] = []
    between: list[int] = []

    def answer(questions: Sequence[tuple[Job, Any]]) -> Sequence[Any]:
        asked.append([question for _, question in questions])
        return [number + 1 for number in asked[-1]]

    slow = [job(jobs.count_up, 10 * n, 3, 0.1 * n, str(tmp_path / str(n))) for n in range(3)]
    with WorkerPool(3, timeout=60, max_faults=2) as pool:
        waiting = dict(enumerate(slow))
        done = dict(
            pool.run(
                lambda worker: waiting.pop(worker, None),
                answer,
                together=True,
                meanwhile=lambda: between.append(len(asked)),
            )
        )
    assert [done[one] for one in slow] == [3, 13, 23]
    assert asked == [[0, 10, 20], [1, 11, 21], [2, 12, 22]]
    assert between == [1, 2, 3]
