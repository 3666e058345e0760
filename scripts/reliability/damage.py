"""Ways to damage a file: what disks, copies and editors do, and edits that keep checksums right."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

_EXTREME = (0, -1, 1, 2**31, 2**63, 10**30, -(10**9), 0.5, 1e308, float("nan"), float("inf"))
_ODD: tuple[Any, ...] = (*_EXTREME, None, True, "", "x" * 1000, "../../etc/passwd", [], {}, [[[]]])
_HEADER_BYTES, _PADDING = 30, 0x4246  # of a ZIP member: header, and torch's mark of padding
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")


def damage_bytes(data: bytes, random: Random) -> bytes:
    """One random change: a bit, a byte, a run of zeros, a piece cut, doubled, moved or added."""
    if not data:
        return b"\0"
    at = random.randrange(len(data))
    size = random.choice((1, 2, 8, 64, 512))
    piece = data[at : at + size]
    change = random.randrange(9)
    if change == 0:
        return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
    if change == 1:
        return data[:at] + random.randbytes(1) + data[at + 1 :]
    if change == 2:
        return data[:at] + bytes(len(piece)) + data[at + len(piece) :]
    if change == 3:
        return data[:at] + data[at + size :]
    if change == 4:
        return data[:at] + piece + data[at:]
    if change == 5:
        return data[:at] + random.randbytes(size) + data[at:]
    if change == 6:
        return data[:at]
    if change == 7:
        return data + random.randbytes(size)
    other = random.randrange(len(data))
    return data[:at] + data[other : other + len(piece)] + data[at + len(piece) :]


def damage_text(data: bytes, random: Random) -> bytes:
    """A change as an editor makes it: a number, a line or a bracket; or one of bytes."""
    change = random.randrange(6)
    numbers = list(_NUMBER.finditer(data))
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    if change == 0 and numbers:
        found = random.choice(numbers)
        return data[: found.start()] + _written(random.choice(_ODD)) + data[found.end() :]
    if change == 1:
        return b"\n".join(lines[:at] + lines[at + 1 :])
    if change == 2:
        return b"\n".join([*lines[:at], random.choice(lines), *lines[at:]])
    if change == 3:
        place = random.randrange(len(data) + 1)
        return (
            data[:place]
            + random.choice((b"[" * 5000, b"{", b"]", b'"', b"\xff", b"!!x ", b": &a *a"))
            + data[place:]
        )
    return damage_bytes(data, random)


def damage_file(path: Path, random: Random) -> None:
    """Change some bytes of a file, or of one file of a directory, delete it or swap two."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
    chosen = random.choice(files)
    if len(files) > 1 and random.random() < 0.1:
        chosen.unlink()
    elif len(files) > 1 and random.random() < 0.1:
        chosen.write_bytes(random.choice(files).read_bytes())
    else:
        is_text = chosen.suffix in (".json", ".yaml", ".jsonl")
        change = damage_text if is_text else damage_bytes
        chosen.write_bytes(change(chosen.read_bytes(), random))


def damage_text_file(path: Path, random: Random) -> None:
    """Change a text file as an editor or a disk does."""
    path.write_bytes(damage_text(path.read_bytes(), random))


def damage_member(path: Path, random: Random) -> None:
    """Change the pickle in an archive of ``torch.save`` and write the archive's sums anew.

    Members begin at multiples of 64 bytes, as torch writes them.
    """
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with open(path, "wb") as file, zipfile.ZipFile(file, "w") as new:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            start = file.tell() + _HEADER_BYTES + len(name) + 4
            info.extra = struct.pack("<HH", _PADDING, -start % 64) + bytes(-start % 64)
            new.writestr(info, damage_bytes(data, random) if name.endswith("data.pkl") else data)


def edit_index(path: Path, random: Random) -> None:
    """Replace one value of a checkpoint's JSON part and write its checksum anew."""
    index = _read_index(path)
    holder, key = random.choice(places(index))
    if random.random() < 0.2:
        del holder[key]
    else:
        holder[key] = random.choice(_ODD)
    _write_index(path, index)


def set_in_index(path: Path, place: Sequence[Any], value: Any) -> None:
    """Set one value of a checkpoint's JSON part, found by its keys, and its checksum."""
    index = holder = _read_index(path)
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    _write_index(path, index)


def _read_index(path: Path) -> Any:
    index = json.loads((path / "checkpoint.json").read_bytes())
    del index["checksum"]
    return index


def _write_index(path: Path, index: Any) -> None:
    text = json.dumps(index, sort_keys=True)
    index["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "checkpoint.json").write_text(json.dumps(index))


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within nested mappings and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in items:
        found.append((node, key))
        if isinstance(value, dict | list):
            found += places(value)
    return found


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


def same(first: Path, second: Path) -> bool:
    """Whether two files, or the files of two directories, are byte for byte the same."""
    if first.is_file() or second.is_file():
        return first.read_bytes() == second.read_bytes()
    names = [sorted(p.relative_to(d) for p in d.rglob("*") if p.is_file()) for d in (first, second)]
    return names[0] == names[1] and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names[0]
    )
