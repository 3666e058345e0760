"""TensorBoard's event files, written at once.

TensorBoard's own writers pass every number to a thread of theirs: on a full disk the exception is
raised there, with a traceback, and reaches the caller at some later call. Here a step's numbers are
one record, which the call writes, or raises. It is imported late, since that takes seconds.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pwm.core.files import make_directory, write_all, writing


class EventFile:
    """A new event file in a directory, made if need be, that TensorBoard looks at.

    TensorBoard reads a directory's files by name, each up to a record that was cut off. So a run
    that goes on begins its own, and earlier files count up to the step before ``purge_from``. Every
    method raises PwmError if it cannot write.
    """

    def __init__(self, directory: Path, purge_from: int) -> None:
        make_directory(directory)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.path = directory / name
        with writing(self.path):
            self._file = self.path.open("xb", buffering=0)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=purge_from, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of one step, by name."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        with writing(self.path):
            write_all(self._file, record.getvalue())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
