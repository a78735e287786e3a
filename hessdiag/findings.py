"""Frozen records of what was found without measuring: in a checkpoint, and on this machine. Plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hessdiag import __version__
from hessdiag.results import CrosscheckRow, plain

__all__ = [
    "Amount",
    "Device",
    "Examination",
    "Inspection",
    "Package",
    "Refusal",
    "SelfTest",
    "TensorInfo",
]

INSPECT_SCHEMA = "hessdiag/inspect@1"
DOCTOR_SCHEMA = "hessdiag/doctor@1"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint; ``nan`` and ``inf`` count its values, None where they cannot be looked at.

    ``same_as`` names the tensor before it whose memory it shares, as tied weights do.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    bytes: int
    nan: int | None
    inf: int | None
    same_as: str | None = None

    @property
    def finite(self) -> bool | None:
        """Whether all its values are finite; None where that is not known."""
        return None if self.nan is None or self.inf is None else self.nan + self.inf == 0


@dataclass(frozen=True)
class Amount:
    """How much several tensors hold, memory that they share counted once."""

    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Refusal:
    """Why a checkpoint would not be loaded, and the names that its pickle would call."""

    reason: str
    globals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint.

    Attributes:
        path: as the user named it.
        format: as a report shows it.
        files: how many files hold the weights.
        bytes: their size together.
        sha256: as a report shows it.
        architecture: what the folder says of its network.
        tensors: the weights, in the checkpoint's order.
        besides: what else is inside, each in a few words.
        refusal: why it would not be loaded; None where it would be.
    """

    path: str
    format: str
    files: int
    bytes: int
    sha256: str
    architecture: Mapping[str, str] = field(default_factory=dict)
    tensors: tuple[TensorInfo, ...] = ()
    besides: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None

    @property
    def total(self) -> Amount:
        """Of all tensors."""
        return _amount(self.tensors)

    @property
    def by_dtype(self) -> dict[str, Amount]:
        """Of the tensors of each dtype, the largest first."""
        kinds: dict[str, list[TensorInfo]] = defaultdict(list)
        for tensor in self.tensors:
            kinds[tensor.dtype].append(tensor)
        amounts = {dtype: _amount(tensors) for dtype, tensors in kinds.items()}
        return dict(sorted(amounts.items(), key=lambda item: -item[1].parameters))

    def to_dict(self) -> dict[str, Any]:
        """The document of ``hessdiag inspect --json``."""
        body = plain(self)
        for shown, tensor in zip(body["tensors"], self.tensors, strict=True):
            shown["finite"] = tensor.finite
        totals = plain(self.total) | {
            "nan": sum(tensor.nan or 0 for tensor in self.tensors),
            "inf": sum(tensor.inf or 0 for tensor in self.tensors),
            "by_dtype": plain(self.by_dtype),
        }
        head = {"schema": INSPECT_SCHEMA, "version": __version__, "loads": self.refusal is None}
        return {**head, **body, "totals": totals}


def _amount(tensors: Sequence[TensorInfo]) -> Amount:
    own = [tensor for tensor in tensors if tensor.same_as is None]
    return Amount(len(tensors), sum(tensor.parameters for tensor in own), sum(tensor.bytes for tensor in own))


@dataclass(frozen=True)
class Package:
    """A package that hessdiag uses, by the name that is installed.

    ``extra`` installs it, None for what is always needed; ``version`` is None where it is missing, and then
    ``install`` is the command to run; ``fault`` says in words why it cannot be used, and what to do.
    """

    name: str
    extra: str | None
    version: str | None
    install: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Device:
    """Where one may measure; ``memory`` in bytes, all of it and what is free, None where it is not told."""

    name: str
    description: str
    memory: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class SelfTest:
    """A small network measured on a device the usual way, each quantity beside that of its dense Hessian."""

    device: str
    seconds: float
    rows: tuple[CrosscheckRow, ...] = ()
    fault: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every quantity agrees."""
        return self.fault is None and bool(self.rows) and all(row.agrees for row in self.rows)


@dataclass(frozen=True)
class Examination:
    """The environment, and whether hessdiag computes right in it."""

    python: str
    platform: str
    torch_build: str | None
    packages: tuple[Package, ...]
    devices: tuple[Device, ...]
    self_tests: tuple[SelfTest, ...]
    version: str = __version__

    @property
    def well(self) -> bool:
        """Whether what is always needed works and every self-test passed; a missing extra is no failure."""
        needed = all(p.version is not None and p.fault is None for p in self.packages if p.extra is None)
        return needed and bool(self.self_tests) and all(test.passed for test in self.self_tests)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``hessdiag doctor --json``."""
        body = plain(self)
        for shown, test in zip(body["self_tests"], self.self_tests, strict=True):
            shown["passed"] = test.passed
        return {"schema": DOCTOR_SCHEMA, "well": self.well, **body}
