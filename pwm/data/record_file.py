"""A data file of a store: records of one size, read so that damage is an error and no crash.

Touching a mapped file that somebody truncated meanwhile kills the process by a signal (SIGBUS).
So nothing here touches a mapping: records are read by system calls, which report what they cannot
read, and the file's state afterwards shows whether it was written to meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.files import writing
from pwm.data.problems import DataError, data_error

_SAMPLES = 16
_SAMPLE_BYTES = 4096


class RecordFile:
    """The first records of a file, which stay what they were when it was opened or are refused.

    Args:
        path: the file.
        task: the task whose data it holds, for messages.
        dtype: of a record.
        count: records, which may be fewer than the file holds; for 0 there need be no file.
        fd: read in the place of what is at ``path``; closed with this object.

    Raises:
        DataError: if it is missing, no plain file or too short.
    """

    def __init__(
        self, path: Path, task: str, dtype: np.dtype[Any], count: int, fd: int | None = None
    ) -> None:
        self.path, self.task, self.dtype, self.count = path, task, dtype, count
        self._fd = -1
        if not count:
            return
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._fd = os.open(path, flags) if fd is None else fd
        except OSError as error:
            raise self._error(f"the file cannot be opened ({error.strerror})") from error
        weakref.finalize(self, os.close, self._fd)
        self._state = os.fstat(self._fd)
        if not stat.S_ISREG(self._state.st_mode):
            raise self._error("it is no plain file")
        if fault := self.fault():
            raise self._error(fault)
        self._samples = self._hash_samples()

    @classmethod
    def holding(cls, path: Path, task: str, records: np.ndarray) -> RecordFile:
        """A nameless file of records that ``path`` holds packed; raises PwmError without room."""
        with writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            file.write(records.data)
            file.flush()
            fd = os.dup(file.fileno())
        return cls(path, task, records.dtype, len(records), fd)

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return self.count * self.dtype.itemsize

    def fileno(self) -> int:
        """The open file's descriptor."""
        return self._fd

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads (stop - start,) of ``dtype``; raises DataError if it cannot, or they changed."""
        records = np.empty((self.count if stop is None else stop) - start, self.dtype)
        if len(records):
            self._read_bytes(records.view(np.uint8), start * self.dtype.itemsize)
            if fault := self.fault():
                raise self._error(fault)
        return records

    def fault(self) -> str | None:
        """What happened to the file since it was opened; None if its records are the same.

        Other processes may append to it meanwhile. After a change of the file that may have been
        an append a sample of the records is compared.
        """
        if not self.count:
            return None
        now = os.fstat(self._fd)
        if now.st_size < self.nbytes:
            return (
                f"the file is truncated: it has {now.st_size} bytes and the manifest commits "
                f"{self.nbytes}"
            )
        if now.st_mtime_ns == self._state.st_mtime_ns:
            return None
        # Only a writer that leaves these records alone makes the file longer, or cuts off what a
        # killed writer left behind them.
        rewritten = self._state.st_size == now.st_size == self.nbytes
        if rewritten or self._hash_samples() != self._samples:
            return "the file was changed while it was being read"
        self._state = now
        return None

    def _hash_samples(self) -> bytes:
        last = max(self.nbytes - _SAMPLE_BYTES, 0)
        offsets = sorted({last * i // (_SAMPLES - 1) for i in range(_SAMPLES)})
        sizes = [min(_SAMPLE_BYTES, self.nbytes - offset) for offset in offsets]
        digest = hashlib.sha256()
        for offset, size in zip(offsets, sizes, strict=True):
            digest.update(os.pread(self._fd, size, offset))
        return digest.digest()

    def _read_bytes(self, buffer: np.ndarray, offset: int) -> None:
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer.data[done:]], offset + done)
            except OSError as error:
                raise self._error(f"the file cannot be read ({error.strerror})") from error
            if not count:
                raise self._error(self.fault() or "the file ends before its last record")
            done += count

    def _error(self, fault: str) -> DataError:
        return data_error(self.path, self.task, fault)
