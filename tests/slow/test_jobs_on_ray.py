"""Jobs on a Ray cluster of two nodes that is started here, with a process and a node lost."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from quick_suite import (
    ENVIRONMENT,
    QuickSuite,
    as_jobs,
    assert_done_by_another,
    assert_same,
    kill_a_job,
    read_record,
    run,
    running_job,
    start,
)

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


class Cluster:
    """Ray nodes of one core each on this machine, each of which runs one job at a time.

    Attributes:
        address: what launchers connect to.
        nodes: the head, and the others.
    """

    def __init__(self, directory: Path) -> None:
        self.address, self._directory = "", directory
        self.nodes: list[subprocess.Popen[bytes]] = []
        for _ in range(2):
            self._add()

    def _add(self) -> None:
        """Start a node; on a busy machine Ray may give up after 30 s, and is started again."""
        for attempt in range(10):
            options = [f"--address={self.address}"]
            if not self.nodes:
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    port = free.getsockname()[1]
                self.address = f"127.0.0.1:{port}"
                options = ["--head", f"--port={port}", "--include-dashboard=false",
                           f"--temp-dir={self._directory}"]  # fmt: skip
            command = [str(Path(sys.executable).with_name("ray")), "start", "--block",
                       "--num-cpus=1", "--disable-usage-stats", *options]  # fmt: skip
            file = self._directory / f"node_{len(self.nodes)}_{attempt}.txt"
            with file.open("wb") as log:
                node = subprocess.Popen(
                    command, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
                )
            while node.poll() is None:
                if b"Ray runtime started" in file.read_bytes():
                    self.nodes.append(node)
                    return
                time.sleep(0.5)
        raise AssertionError(f"Ray does not start: {file.read_text()}")

    def pids(self, node: int) -> list[int]:
        """Of all that a node has started and that is still there."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [p.pid for p in psutil.Process(self.nodes[node].pid).children(recursive=True)]
        return []

    def lose(self, node: int) -> None:
        """End a node and all of its processes at once."""
        for pid in [*self.pids(node), self.nodes[node].pid]:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self.nodes[node].wait()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="ray"))  # short, for it holds sockets
    made = Cluster(directory)
    try:
        yield made
    finally:
        for node in reversed(range(len(made.nodes))):
            made.lose(node)
        shutil.rmtree(directory, ignore_errors=True)


def test_a_process_and_a_node_are_lost_and_the_table_is_that_of_one_process(cluster, tmp_path):
    suite = QuickSuite(tmp_path)
    one, many = tmp_path / "one", tmp_path / "many"
    for directory in (one, many):
        directory.mkdir()
    run(one, *suite.extract, "tasks=quick")
    run(one, *suite.evaluate, "tasks=quick")

    on_ray = ["launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}"]
    extraction = start(many, *as_jobs(suite.extract, *on_ray))
    job, pid = kill_a_job(many / "policies")
    shown = extraction.communicate()[0]
    assert extraction.returncode == 0, shown
    assert_done_by_another(job, pid)
    run(many, "gather", "run=policies")

    evaluation = start(many, *as_jobs(suite.evaluate, *on_ray))
    job = running_job(many / "scores", lambda record: record.pid in cluster.pids(1))
    pid = read_record(job).pid
    cluster.lose(1)
    shown = evaluation.communicate()[0]
    assert evaluation.returncode == 0, shown
    assert_done_by_another(job, pid)
    run(many, "gather", "run=scores")
    assert_same(one, many)
