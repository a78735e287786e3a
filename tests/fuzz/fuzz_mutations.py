"""What can happen to files: small steps that hypothesis strings together, and takes apart again when one tells."""

from __future__ import annotations

import gzip
import io
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from fuzz_program import Empty, Files, Item, Link, Padded, Pipe
from hypothesis import strategies as st

NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "255", "65536", "2147483648", "4294967296", "9223372036854775807"),
    *("18446744073709551616", "1000000000000000000000000000000", "-9223372036854775808", "1073741824", "1.5", "1e999"),
    *("NaN", "Infinity", "null", "true", '"x"', "[]", "{}", "-0", "1e-400", "0x10", "1_000", ""),
)
WORDS = (
    *("", "x", "y", "0.weight", "0", "null", "None", "../outside", "../../etc/passwd", "/etc/passwd", ".", "..", "O"),
    *("float64", "int8", "bool", "complex64", "object", "datetime64", "F32", "F64", "I8", "F8_E4M3", "BOOL", "BF16"),
    *("torch", "os", "eval", "system", "posix", "collections", "FloatStorage", "LongStorage", "QInt8Storage"),
    *("\x1b[31mred", "[bold]", "%s%n{}", "a" * 4000, "\u202e", "\x00", "\n\n", "é", '"', "'", "\\", "~nobody", "*a"),
    *("[" * 3000, "{" * 3000, "(" * 3000, "__class__", "format", "labels", "cuda:0", "mse", "model", "causal_lm"),
)
HEADS = (
    *(b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x05", b"GGUF\x03\0\0\0", b"\x93NUMPY\x01\0", b"PAR1", b"\x1f\x8b\x08"),
    *(
        b"\0\0\x08\x03",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"ustar",
        b"BZh9",
        b"version https://git-lfs",
        b"\xff\xfe",
    ),
    *(b"\x08\x07\x12\x07pytorch", b"ARROW1\0\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"II*\0", b"<html>", b"GIF89a"),
)
INTEGERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_LARGEST = 1 << 20  # beyond it are bombs, which must not go off here
PADDED_TO = 1 << 30  # more than a run may take of memory, beside what it begins with
BOMB_BYTES = 4_000_000_000  # fits into a zip header of 32 bits

# -- bytes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One thing that happens to bytes: ``what`` at ``at``, counted round where it is beyond the end."""

    what: str
    at: int = 0
    with_: Any = None

    def __call__(self, content: bytes) -> bytes:
        return _STEPS[self.what](content, self.at % max(len(content), 1), self.with_)


def _token(pattern: str) -> Callable[[bytes, int, Any], bytes]:
    """Replace one of the tokens by another text."""
    compiled = re.compile(pattern.encode())

    def step(content: bytes, at: int, text: str) -> bytes:
        found = [match.span() for match in compiled.finditer(content[: 1 << 16])]
        if not found:
            return content
        begin, end = found[at % len(found)]
        return content[:begin] + text.encode("utf-8", "surrogateescape") + content[end:]

    return step


def _lines(change: Callable[[list[bytes], int], list[bytes]]) -> Callable[[bytes, int, Any], bytes]:
    def step(content: bytes, at: int, _: Any) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join(change(lines, at % len(lines))) if lines else content

    return step


def _swap(content: bytes, at: int, to: int) -> bytes:
    half = len(content) // 2
    at, to = at % max(half, 1), half + to % max(half, 1)
    size = min(16, len(content) - to, to - at)
    moved = bytearray(content)
    moved[at : at + size], moved[to : to + size] = content[to : to + size], content[at : at + size]
    return bytes(moved)


_STEPS: dict[str, Callable[[bytes, int, Any], bytes]] = {
    "cut": lambda content, at, _: content[:at],
    "behead": lambda content, at, _: content[at:],
    "flip": lambda content, at, bit: (
        content[:at] + bytes(b ^ (1 << bit) for b in content[at : at + 1]) + content[at + 1 :]
    ),
    "put": lambda content, at, new: content[:at] + new + content[at + len(new) :],
    "insert": lambda content, at, new: content[:at] + new + content[at:],
    "drop": lambda content, at, size: content[:at] + content[at + size :],
    "repeat": lambda content, at, size: content[: at + size] + content[at:],
    "multiply": lambda content, at, times: content[:at] + content[at : at + 64] * times + content[at:],
    "append": lambda content, _, new: content + new,
    "head": lambda content, _, new: new + content[len(new) :],
    "zero": lambda content, at, size: content[:at] + bytes(len(content[at : at + size])) + content[at + size :],
    "swap": _swap,
    "number": _token(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"),
    "word": _token(r"[A-Za-z_][A-Za-z_0-9.]*"),
    "quoted": _token(r"(?<=[\"'])[^\"'\n]*(?=[\"'])"),
    "value": _token(rb"(?<=: )[^\n]*".decode()),
    "drop line": _lines(lambda lines, at: lines[:at] + lines[at + 1 :]),
    "repeat line": _lines(lambda lines, at: lines[: at + 1] + lines[at:]),
    "indent line": _lines(lambda lines, at: [*lines[:at], b"  " + lines[at], *lines[at + 1 :]]),
    "swap lines": _lines(lambda lines, at: lines[:at] + lines[at : at + 2][::-1] + lines[at + 2 :]),
}

_places = st.one_of(st.integers(0, 127), st.integers(-128, -1), st.integers(0, 2**20))
_packed = st.builds(
    lambda number, form: struct.pack(form, number % 256 ** struct.calcsize(form)),
    st.sampled_from(INTEGERS),
    st.sampled_from(("<I", "<Q", ">I", ">Q", "<H", "B")),
)
_scraps = st.one_of(_packed, st.binary(min_size=1, max_size=9), st.sampled_from(HEADS[1:]))
_hostile = st.sampled_from(NUMBERS + WORDS)

TEXT_STEPS = st.one_of(
    st.builds(Step, st.just("number"), _places, st.sampled_from(NUMBERS)),
    st.builds(Step, st.sampled_from(("word", "quoted", "value")), _places, _hostile),
    st.builds(Step, st.sampled_from(("drop line", "repeat line", "indent line", "swap lines")), _places),
)
BYTE_STEPS = st.one_of(
    st.builds(Step, st.just("flip"), _places, st.integers(0, 7)),
    st.builds(Step, st.sampled_from(("cut", "behead")), _places),
    st.builds(Step, st.sampled_from(("put", "insert")), _places, _scraps),
    st.builds(Step, st.sampled_from(("drop", "repeat", "zero")), _places, st.integers(1, 40)),
    st.builds(Step, st.just("multiply"), _places, st.sampled_from((3, 300, 30_000))),
    st.builds(Step, st.sampled_from(("append", "head")), st.just(0), st.sampled_from(HEADS)),
    st.builds(Step, st.just("swap"), _places, _places),
)
STEPS = st.one_of(TEXT_STEPS, BYTE_STEPS)

# -- files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inside:
    """A step taken inside a container, which is then closed as it should be: lengths and checksums agree again.

    ``part`` counts the parts of the container, and if ``deeper`` those of the containers in it.
    """

    part: int
    step: Step
    deeper: bool

    def __call__(self, content: bytes) -> bytes:
        container = unpack(content)
        if container is None or not container.parts:
            return self.step(content)
        parts = [*container.parts]
        name, part = parts[self.part % len(parts)]
        parts[self.part % len(parts)] = name, (self if self.deeper else self.step)(part)
        return container.close(parts)


@dataclass(frozen=True)
class Records:
    """What happens to the records of an archive as wholes."""

    what: str
    part: int
    with_: str

    def __call__(self, content: bytes) -> bytes:
        container = unpack(content)
        if container is None or not container.parts:
            return content
        parts = [*container.parts]
        at, other = self.part % len(parts), (self.part + 1) % len(parts)
        name, part = parts[at]
        match self.what:
            case "drop":
                del parts[at]
            case "twice":
                parts.append((name, part[::-1]))
            case "rename":
                parts[at] = self.with_, part
            case "exchange":
                parts[at], parts[other] = (name, parts[other][1]), (parts[other][0], part)
            case "empty":
                parts[at] = name, b""
            case "bomb":
                return container.bomb(parts, at) if container.bomb else content
        return container.close(parts) if parts else b""


@dataclass(frozen=True)
class Whole:
    """What happens to a file as a whole: the folder has something else under its name."""

    what: str
    with_: Any = None

    def __call__(self, files: dict[str, Item], name: str) -> None:
        others = sorted(other for other in files if other != name and not other.endswith((".py", ".yaml")))
        other = others[self.with_ % len(others)] if isinstance(self.with_, int) and others else name
        match self.what:
            case "drop":
                del files[name]
            case "exchange":
                files[name], files[other] = files[other], files[name]
            case "instead":
                files[name] = files[other]
            case "padded":
                content = files[name]
                files[name] = Padded(content, PADDED_TO) if isinstance(content, bytes) else content
            case "link":
                files[name] = Link(self.with_)
            case "rename":
                files[f"{name.rpartition('/')[0] or '.'}/{self.with_}"] = files.pop(name)
            case "pipe":
                files[name] = Pipe()
            case "folder":
                files[name] = Empty()


Change = Step | Inside | Records | Whole


@dataclass(frozen=True)
class Mutation:
    """Changes to files, one after another; ``file`` counts those that may be changed."""

    changes: tuple[tuple[int, Change], ...]

    def __call__(self, original: Files, may_change: Callable[[str], bool]) -> dict[str, Item]:
        files = dict(original)
        for number, change in self.changes:
            names = sorted(filter(may_change, files))
            if not names:
                break
            name = names[number % len(names)]
            content = files[name]
            if isinstance(change, Whole):
                change(files, name)
            elif isinstance(content, bytes):
                files[name] = change(content)
        return files


_LINKS = (
    "../outside.safetensors",
    "../outside",
    "/etc/passwd",
    "/dev/zero",
    "missing",
    "loop",
    "..",
    ".",
    "/proc/self/mem",
)
_NAMES = ("loop", "x" * 255, "\udcff", "\x1b[31m", "new\nline", "%s", "[red]", "pytorch_model.bin", "config.json")
FILES = st.one_of(
    st.builds(Whole, st.sampled_from(("drop", "pipe", "folder", "padded"))),
    st.builds(Whole, st.sampled_from(("exchange", "instead")), st.integers(0, 7)),
    st.builds(Whole, st.just("link"), st.sampled_from(_LINKS)),
    st.builds(Whole, st.just("rename"), st.sampled_from(_NAMES)),
)
ARCHIVES = st.builds(
    Records,
    st.sampled_from(("drop", "twice", "rename", "exchange", "empty", "bomb")),
    st.integers(0, 9),
    st.sampled_from(("../outside", "/tmp/outside", "..", "x.npy", "y.npy", "a" * 300, "data.pkl", "\x1b[31m", "")),
)
INSIDE = st.builds(Inside, st.integers(0, 9), STEPS, st.booleans())
CHANGES = st.one_of(INSIDE, STEPS, ARCHIVES, INSIDE, FILES)


def mutations(changes: st.SearchStrategy[Any] = CHANGES) -> st.SearchStrategy[Mutation]:
    """One to three changes, mostly one: a second fault may hide the first."""
    numbered = st.tuples(st.integers(0, 9), changes)
    several = st.one_of(st.tuples(numbered), st.tuples(numbered), st.tuples(numbered, numbered, numbered))
    return st.builds(Mutation, several)


# -- containers --------------------------------------------------------------------------------------------

Parts = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Container:
    """The parts of a file, and how a file is made of them again; ``bomb`` lets one inflate without end."""

    parts: Parts
    close: Callable[[Parts], bytes]
    bomb: Callable[[Parts, int], bytes] | None = None


def unpack(content: bytes) -> Container | None:
    """The parts of an archive, of a compressed file, or of a file with a header; None for anything else."""
    if len(content) > _LARGEST:
        return None
    try:
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return Container([(one, archive.read(one)) for one in archive.namelist()], _zip, _zip_bomb)
        if content.startswith(b"\x1f\x8b"):
            return Container(
                [("", gzip.decompress(content))], lambda parts: gzip.compress(parts[0][1], 1, mtime=0), _gzip_bomb
            )
        if content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                files = [member for member in archive.getmembers() if member.isfile()]
                return Container([(one.name, archive.extractfile(one).read()) for one in files], _tar)
    except Exception:  # an earlier change has damaged it beyond opening
        return None
    length = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and length < len(content):
        return Container([("header", content[8 : 8 + length]), ("data", content[8 + length :])], _safetensors)
    if content.startswith(b"\x93NUMPY\x01\0"):
        end = 10 + int.from_bytes(content[8:10], "little")
        return Container([("header", content[10:end]), ("data", content[end:])], _npy)
    return None


def _zip(parts: Parts) -> bytes:
    raw = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(raw, "w") as archive:
        warnings.simplefilter("ignore")  # of two records of one name
        for name, part in parts:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "") or "none"), part)
    return raw.getvalue()


def _zip_bomb(parts: Parts, at: int) -> bytes:
    """The record inflates to gigabytes, as both headers say."""
    name, part = parts[at]
    packed = _zeros(part[: 1 << 12])
    parts = [*parts[:at], (name, packed), *parts[at + 1 :]]
    archive = bytearray(_zip(parts))
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        begin = opened.infolist()[at].header_offset
        central = opened.start_dir
    for _ in range(at):
        central = archive.index(b"PK\x01\x02", central + 4)
    struct.pack_into("<H", archive, begin + 8, zipfile.ZIP_DEFLATED)
    struct.pack_into("<I", archive, begin + 22, BOMB_BYTES)
    struct.pack_into("<H", archive, central + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<I", archive, central + 24, BOMB_BYTES)
    return bytes(archive)


def _gzip_bomb(parts: Parts, at: int) -> bytes:
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + _zeros(parts[0][1][: 1 << 12]) + struct.pack("<II", 0, BOMB_BYTES)


@cache
def _zeros(head: bytes) -> bytes:
    """A deflate stream of ``head`` and then zeros, ``BOMB_BYTES`` in all, without making them one by one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    count, rest = divmod(BOMB_BYTES - len(head), 1 << 24)
    return first + block * count + packer.compress(bytes(rest)) + packer.flush(zlib.Z_FINISH)


def _tar(parts: Parts) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, part in parts:
            member = tarfile.TarInfo(name.replace("\0", ""))
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))
    return raw.getvalue()


def _safetensors(parts: Parts) -> bytes:
    (_, header), *rest = parts or [("", b"")]
    return len(header).to_bytes(8, "little") + header + b"".join(part for _, part in rest)


def _npy(parts: Parts) -> bytes:
    (_, header), *rest = parts or [("", b"")]
    header = header[:60_000].rstrip() + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + b"".join(part for _, part in rest)
