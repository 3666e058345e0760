"""Reading files that ``torch.save`` wrote without running anything that they hold.

Such a file is a ZIP archive of one pickle and one member per storage. A pickle may name any
importable function and call it, so the names in it are read first, without unpickling, and a file
that has one which is neither in NAMES nor of a class that has a stand-in
(:mod:`pwm.interop.pickled_records`) is refused by that name. Then ``torch.load`` reads it with
``weights_only``, where a TensorDict is an inert record of this module, and with storages that are
memory-mapped, so that a file larger than memory can be read piece by piece.

Refused, each with a sentence: bare pickles and tar archives (written before torch 1.6),
TorchScript archives (which hold programs), and files whose checksums or sizes do not fit.
"""

from __future__ import annotations

import _compat_pickle
import hashlib
import io
import pickletools
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)

from pwm.core.errors import PwmError
from pwm.interop.pickled_records import BYTES, Record, is_inert, stand_in

_MAX_PICKLE_BYTES = 2**26  # names and shapes only; published files have less than 2**15
_READ_BYTES = 2**22
_AGAIN = "get it again from where it was published"


class TensorDictRecord:
    """The content of a pickled TensorDict.

    Attributes:
        state: its attributes by name; ``_tensordict`` has the entries.
    """

    state: Any = None

    def __setstate__(self, state: object) -> None:
        """Keep the attributes."""
        self.state = state


def _make_tensordict(kind: object, state: object) -> TensorDictRecord:
    """Stands in for the function that current tensordict releases pickle, of a class and state."""
    made = TensorDictRecord()
    made.__setstate__(state)
    return made


class _Schema:
    """A part of a locked TensorDict without content that is needed."""

    def __init__(self, *_: object) -> None:
        pass


_STAND_INS: dict[str, Any] = {
    "tensordict.tensordict.TensorDict": TensorDictRecord,
    "tensordict._td.TensorDict": TensorDictRecord,
    "tensordict.utils._StringOnlyDict": OrderedDict,
    "tensordict.utils._LockedSchema": _Schema,
    "tensordict._reductions._make_td": _make_tensordict,
}
_DTYPES = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16",
    "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool",
}  # fmt: skip
NAMES = {
    "collections.OrderedDict",
    "builtins.set",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_meta_tensor_no_storage",
    *(f"torch.{dtype}" for dtype in _DTYPES),
    *(f"torch.{kind}Storage" for kind in _DTYPES.values()),
    *_STAND_INS,
    BYTES,
}
"""What a pickle may name."""


class TorchFile:
    """A file of ``torch.save``, open for reading; whatever is wrong with it is a PwmError.

    Attributes:
        path: the file.
        content: what was saved, of mappings, lists, tuples, plain values and tensors, with
            `TensorDictRecord` for a TensorDict and `Record` for other objects. Tensors are
            memory-mapped; changing one does not change the file.
        fingerprint: 16 hexadecimal digits that follow from the names, sizes and CRC-32 sums of
            all members; equal for files of equal content.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the file's structure; tensors stay on disk.

        Raises:
            PwmError: if there is no such file, it is damaged, of an old format, or it names
                anything that is not in NAMES.
        """
        self.path = Path(path)
        self._members, self._root = _members(self.path)
        self.fingerprint = _fingerprint(self._members, self._root)
        order = self._read("byteorder").decode("ascii", "replace") or sys.byteorder
        if order != sys.byteorder:
            raise PwmError(f"{self.path} is {order}-endian and this machine is not.")
        if self._members[f"{self._root}data.pkl"].file_size > _MAX_PICKLE_BYTES:
            raise PwmError(f"{self.path} is no file of tensors: its pickle is too large.")
        names = _names(self._read("data.pkl"))
        if forbidden := _forbidden(names):
            raise PwmError(_why_forbidden(self.path, forbidden))
        self.content = self._load({name for name in names if is_inert(name)})

    def _load(self, inert: set[str]) -> Any:
        infos = self._members.values()
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        sizes = {i.file_size for i in infos if i.filename.startswith(f"{self._root}data/")}
        registered = get_safe_globals()  # under the same names, if tensordict is imported
        clear_safe_globals()
        try:
            stand_ins = _STAND_INS | {name: stand_in(name) for name in inert}
            with safe_globals([(made, name) for name, made in stand_ins.items()]):
                content = torch.load(self.path, "cpu", weights_only=True, mmap=stored)
            for tensor in _tensors(content):
                if not tensor.is_meta and tensor.untyped_storage().nbytes() not in sizes:
                    raise ValueError("a storage is not as large as its member")
        except Exception as error:  # what garbage makes an unpickler raise is not enumerable
            reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().split("\n")[0]
            raise PwmError(f"{self.path} is damaged: {reason:.200}; {_AGAIN}.") from error
        finally:
            add_safe_globals(registered)
        return content

    def _read(self, name: str) -> bytes:
        """The content of a small member, empty where there is none."""
        info = self._members.get(self._root + name)
        return b"" if info is None else b"".join(self._blocks(info))

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
            yield from map(len, self._blocks(info))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors within some content, which may refer to itself."""
    waiting, seen = [value], {id(value)}
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
            continue
        inner: list[Any] = []
        if isinstance(value, TensorDictRecord | Record):
            inner = [value.state]
        elif isinstance(value, dict):
            inner = list(value.values())
        elif isinstance(value, list | tuple | set):
            inner = list(value)
        new = [entry for entry in inner if id(entry) not in seen]
        seen.update(map(id, new))
        waiting += new


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
        if forbidden := _forbidden(_names(head)):
            return _why_forbidden(path, forbidden)
        return (
            f"{path} is a bare pickle, as torch wrote before version 1.6, and is not read here; "
            "save it again with a current torch.save."
        )
    if head[257:262] == b"ustar":
        return f"{path} is a tar archive, which is not read here; unpack it if it holds files."
    if head[:4] == b"PK\x03\x04":
        return f"{path} is truncated: the archive's end is missing; {_AGAIN}."
    return f"{path} is no file that torch.save wrote; check the path."


def _why_forbidden(path: Path, names: list[str]) -> str:
    listed = ", ".join(f"'{name!s:.100}'" for name in dict.fromkeys(names))
    return (
        f"{path} names {listed}, which no file of tensors needs and which could run code, so it "
        "was not read and nothing in it ran; do not load it with other programs either unless "
        "you trust its source."
    )


def _forbidden(names: list[str]) -> list[str]:
    return [name for name in names if name not in NAMES and not is_inert(name)]


def _names(data: bytes) -> list[str]:
    """The names of classes and functions in a stream of pickles, found without unpickling.

    torch.load takes classes and functions from GLOBAL alone, which has its name beside it; that of
    STACK_GLOBAL, which it refuses, is what the last two strings usually are.
    """
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


def _full_name(module: str, name: str = "") -> str:
    """The importable name; pickles of protocol 2 use those of Python 2."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"
