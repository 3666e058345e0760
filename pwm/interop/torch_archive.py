"""Reading files that ``torch.save`` wrote without running anything that they hold.

Such a file is a ZIP archive of one pickle and one member a storage. A pickle may name any
importable function and call it, so here it is read by an unpickler that knows the names below and
no others. Not even these reach the real classes: each name stands for an inert class of this
module, which keeps what it is given, or for an immutable builtin. Tensors are made afterwards,
from memory-mapped storages whose sizes were compared with the archive's, so that a file larger
than memory can be read piece by piece.

Refused, each with a sentence: bare pickles and tar archives (written before torch 1.6),
TorchScript archives (which hold programs), and whatever names something else.
"""

from __future__ import annotations

import _compat_pickle
import hashlib
import io
import mmap
import pickle
import pickletools
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.core.errors import PwmError

_MAX_PICKLE_BYTES = 2**26  # names and shapes only; published files have less than 2**15
_READ_BYTES = 2**22
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a ZIP member: signature, name and extra lengths
_AGAIN = "get it again from where it was published"


class _ForbiddenError(Exception):
    """A name that is not on the list; becomes a PwmError that names the file too."""


class _Sealed(type):
    """A class whose attributes a pickle cannot replace."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"a pickle sets {name} of a class")


class Record(dict[Any, Any], metaclass=_Sealed):
    """A mapping of any of the allowed classes; attributes that the pickle gives it are dropped."""

    def __setstate__(self, state: object) -> None:
        """Ignored."""


class TensorDictRecord(metaclass=_Sealed):
    """What a pickled TensorDict holds.

    Attributes:
        state: its attributes by name; ``_tensordict`` has the entries.
    """

    state: Any = None

    def __setstate__(self, state: object) -> None:
        """Keep the attributes."""
        self.__dict__["state"] = state


class _MakeTensorDict(metaclass=_Sealed):
    """How current tensordict releases pickle: a function of a class and its state."""

    def __new__(cls, kind: object, state: object) -> Any:
        if kind is not TensorDictRecord:
            raise pickle.UnpicklingError("a TensorDict of another class")
        made = TensorDictRecord()
        made.__setstate__(state)
        return made


class _Storage:
    """A storage by the archive member that holds it."""

    __slots__ = ("dtype", "key", "numel")

    def __init__(self, dtype: torch.dtype, key: str, numel: int) -> None:
        self.dtype, self.key, self.numel = dtype, key, numel


class StoredTensor(metaclass=_Sealed):
    """A tensor that is in the file: a strided view of a storage. `TorchFile.tensor` makes it."""

    def __init__(
        self, storage: object, offset: object, shape: object, stride: object, *_: object
    ) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride


class _Parameter(metaclass=_Sealed):
    """A parameter is its tensor here."""

    def __new__(cls, data: object, *_: object) -> Any:
        return data


class Placeholder(metaclass=_Sealed):
    """What has no content that is needed: a tensor on the meta device, a device, a list of keys."""

    def __init__(self, *_: object) -> None:
        pass


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": Record,
    "builtins.set": set,
    "torch.Size": tuple,
    "torch.device": Placeholder,
    "torch._utils._rebuild_tensor_v2": StoredTensor,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch._utils._rebuild_meta_tensor_no_storage": Placeholder,
    "tensordict.tensordict.TensorDict": TensorDictRecord,
    "tensordict._td.TensorDict": TensorDictRecord,
    "tensordict.utils._StringOnlyDict": Record,
    "tensordict.utils._LockedSchema": Placeholder,
    "tensordict._reductions._make_td": _MakeTensorDict,
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{str(dtype): dtype for dtype in _STORAGES.values()},
}


def _full_name(module: str, name: str = "") -> str:
    """The importable name; pickles of protocol 2 use those of Python 2."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = _full_name(module, name)
        if full not in ALLOWED:
            raise _ForbiddenError(full)
        return ALLOWED[full]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel = pid
        known = isinstance(dtype, torch.dtype) and isinstance(key, str) and isinstance(numel, int)
        if kind != "storage" or not known or numel < 0:
            raise pickle.UnpicklingError("a malformed storage")
        return _Storage(dtype, key, numel)


class TorchFile:
    """A file of ``torch.save``, open for reading; whatever is wrong with it is a PwmError.

    Attributes:
        path: the file.
        content: what was saved, of dicts, lists, tuples and plain values, with `StoredTensor` for
            tensors, `TensorDictRecord` for a TensorDict and `Record` for other mappings.
        fingerprint: 16 hexadecimal digits that follow from the names, sizes and CRC-32 sums of
            all members; equal for files of equal content.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the file's structure; tensors stay on disk.

        Raises:
            PwmError: if there is no such file, it is damaged, of an old format, or it names
                anything that is not on the list.
        """
        self.path = Path(path)
        self._members, self._root = _members(self.path)
        self.fingerprint = _fingerprint(self._members, self._root)
        self._map: mmap.mmap | None = None
        self.content = self._unpickle()

    def _member(self, name: str) -> zipfile.ZipInfo:
        full = self._root + name
        if full not in self._members:
            raise PwmError(f"{self.path} is damaged: it has no member '{name}'; {_AGAIN}.")
        return self._members[full]

    def _unpickle(self) -> Any:
        if self._root + "byteorder" in self._members:
            order = self._read(self._member("byteorder")).decode("ascii", "replace")
            if order != sys.byteorder:
                raise PwmError(f"{self.path} is {order}-endian and this machine is not.")
        info = self._member("data.pkl")
        if info.file_size > _MAX_PICKLE_BYTES:
            raise PwmError(f"{self.path} is no file of tensors: its pickle is too large.")
        data = self._read(info)
        try:
            return _Unpickler(io.BytesIO(data)).load()
        except _ForbiddenError as error:
            raise PwmError(_forbidden(self.path, [str(error)])) from error
        except Exception as error:  # what garbage makes an unpickler raise is not enumerable
            raise PwmError(f"{self.path} is damaged: {error!r:.200}; {_AGAIN}.") from error

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        return b"".join(self._blocks(info))

    def _blocks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The member's bytes in pieces; its checksum is compared at the end."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
                while block := member.read(_READ_BYTES):
                    yield block
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            raise PwmError(f"{self.path} is damaged: {error}; {_AGAIN}.") from error
        except NotImplementedError as error:
            raise PwmError(f"{self.path} cannot be read: {error}; {_AGAIN}.") from error

    def verify(self) -> Iterator[int]:
        """Compare every member's CRC-32 sum.

        Yields:
            The number of bytes of the piece that was just read.

        Raises:
            PwmError: if one differs.
        """
        for info in self._members.values():
            for block in self._blocks(info):
                yield len(block)

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(info.file_size for info in self._members.values())

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The tensor, memory-mapped; changing it does not change the file.

        Raises:
            PwmError: if its sizes do not fit what the file has.
        """
        storage = stored.storage
        if not isinstance(storage, _Storage):
            raise PwmError(f"{self.path} is damaged: a tensor has no storage; {_AGAIN}.")
        info = self._member(f"data/{storage.key}")
        if info.file_size != storage.numel * storage.dtype.itemsize:
            raise PwmError(f"{self.path} is damaged: member {storage.key} has another size.")
        try:
            flat = self._flat(info, storage)
            return flat.as_strided(stored.shape, stored.stride, stored.offset)  # type: ignore[arg-type]
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise PwmError(f"{self.path} is damaged: {reason:.200}; {_AGAIN}.") from error

    def _flat(self, info: zipfile.ZipInfo, storage: _Storage) -> Tensor:
        if not storage.numel:
            return torch.empty(0, dtype=storage.dtype)
        if info.compress_type != zipfile.ZIP_STORED:
            data = bytearray(info.file_size)
            end = 0
            for block in self._blocks(info):
                data[end : end + len(block)] = block
                end += len(block)
            return torch.frombuffer(data, dtype=storage.dtype)
        mapped = self._mapping()
        start = info.header_offset
        header = mapped[start : start + _LOCAL_HEADER.size]
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise ValueError(f"member {storage.key} is not where the archive says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start += _LOCAL_HEADER.size + name_length + extra_length
        if start % storage.dtype.itemsize:
            raise ValueError(f"member {storage.key} is not aligned")
        return torch.frombuffer(mapped, dtype=storage.dtype, count=storage.numel, offset=start)

    def _mapping(self) -> mmap.mmap:
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._map

    def release_pages(self) -> None:
        """Takes the mapped file out of this process's resident memory; tensors stay valid."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _members(path: Path) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The archive's members, and the folder that all of them are in."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except FileNotFoundError as error:
        raise PwmError(f"there is no file {path}; check the path.") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise PwmError(_why_no_archive(path)) from error
    except OSError as error:
        raise PwmError(f"cannot read {path} ({error.strerror}); give a file.") from error
    members = {info.filename: info for info in infos}
    if len(members) < len(infos):
        raise PwmError(f"{path} is damaged: it has two members of one name; {_AGAIN}.")
    root = infos[0].filename.partition("/")[0] + "/" if infos else ""
    if f"{root}constants.pkl" in members or any(n.startswith(f"{root}code/") for n in members):
        raise PwmError(
            f"{path} is a TorchScript archive, which holds programs; give a file of tensors that "
            "torch.save wrote."
        )
    if f"{root}data.pkl" not in members:
        raise PwmError(f"{path} is no file that torch.save wrote: it is a ZIP without data.pkl.")
    return members, root


def _fingerprint(members: dict[str, zipfile.ZipInfo], root: str) -> str:
    digest = hashlib.sha256()
    for name, info in sorted(members.items()):
        digest.update(f"{name.removeprefix(root)} {info.file_size} {info.CRC}\n".encode())
    return digest.hexdigest()[:16]


def _why_no_archive(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(2**20)
    if head[:1] == b"\x80":
        forbidden = [name for name in _names(head) if name not in ALLOWED]
        if forbidden:
            return _forbidden(path, forbidden)
        return (
            f"{path} is a bare pickle, as torch wrote before version 1.6, and is not read here; "
            "save it again with a current torch.save."
        )
    if head[257:262] == b"ustar":
        return f"{path} is a tar archive, which is not read here; unpack it if it holds files."
    if head[:4] == b"PK\x03\x04":
        return f"{path} is truncated: the archive's end is missing; {_AGAIN}."
    return f"{path} is no file that torch.save wrote; check the path."


def _forbidden(path: Path, names: list[str]) -> str:
    listed = ", ".join(f"'{name!s:.100}'" for name in dict.fromkeys(names))
    return (
        f"{path} names {listed}, which no file of tensors needs and which could run code, so it "
        "was not read and nothing in it ran; do not load it with other programs either unless "
        "you trust its source."
    )


def _names(data: bytes) -> list[str]:
    """Names of classes and functions in a stream of pickles, found without unpickling."""
    names: list[str] = []
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        texts: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.append(_full_name(*str(argument).split(" ", 1)))
                elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
                    names.append(_full_name(*texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
        except (ValueError, OverflowError):
            break
    return names
