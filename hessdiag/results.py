"""Frozen records of what was measured: value, error, cost, seed. Plain Python, to the report schema and back.

``Report.to_dict()`` is the JSON document that scripts and CI jobs read (schema ``hessdiag/report@1``);
keys that were not measured are absent, numbers are never NaN or infinite.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hessdiag import __version__
from hessdiag.cost import Cost

__all__ = [
    "SCHEMA",
    "SECTIONS",
    "Caution",
    "CheckpointInfo",
    "Cost",
    "CrosscheckResult",
    "CrosscheckRow",
    "DataInfo",
    "DensityResult",
    "Eigenpair",
    "EigenvalueBounds",
    "EigenvaluesResult",
    "EngineInfo",
    "Estimate",
    "GapFit",
    "GapResult",
    "GapRow",
    "GroupTrace",
    "Report",
    "SigmaSearch",
    "Target",
    "TracePart",
    "TraceResult",
    "plain",
]

SCHEMA = "hessdiag/report@1"

SECTIONS = {
    "eigenvalues": "eigenvalues",
    "trace": "trace",
    "gap": "noise gap",
    "density": "spectral density",
    "crosscheck": "crosscheck",
}
"""What a report may hold, in the order in which it is shown: keys, and names for people."""

Status = Literal["complete", "partial", "failed"]
_ABSENT = {"absent": "where there is nothing to say"}
"""Marks a field that a document lacks as long as it has its default."""


@dataclass(frozen=True)
class Eigenpair:
    """One eigenvalue, with ``residual_norm`` = ||Hv - value v|| for its unit vector v, measured by a product."""

    value: float
    residual_norm: float


@dataclass(frozen=True)
class EigenvalueBounds:
    """What no eigenvalue exceeds: all lie within ``lower`` to ``upper`` with probability ``confidence``.

    The probability is over the random start vector; a residual cannot say this.
    """

    lower: float
    upper: float
    confidence: float


@dataclass(frozen=True)
class EigenvaluesResult:
    """Extreme eigenvalues: ``largest`` from the top down, ``smallest`` from the bottom up (algebraically)."""

    method: str
    matvecs: int
    converged: bool
    rtol: float
    largest: tuple[Eigenpair, ...]
    smallest: tuple[Eigenpair, ...]
    seed: int
    cost: Cost
    bounds: EigenvalueBounds | None = field(default=None, metadata=_ABSENT)
    restarts: int = 0  # of a basis that had reached the memory it may take


@dataclass(frozen=True)
class GroupTrace:
    """The part of the trace that belongs to one parameter tensor."""

    name: str
    parameters: int
    value: float
    stderr: float


@dataclass(frozen=True)
class TracePart:
    """One part of a trace that was measured in parts: ``passes`` gradients or products were spent on it."""

    value: float
    stderr: float
    passes: int | float


@dataclass(frozen=True)
class TraceResult:
    """A trace with its standard error and an interval that holds the truth with probability ``confidence``.

    ``probes`` and ``matvecs`` count Hessian-vector products. Of the Gauss-Newton split H = G + R the parts are in
    ``gauss_newton`` and ``residual``. ``reason``: why ``auto`` took this method, or what it found.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    confidence: float
    method: str
    probes: int
    matvecs: int
    converged: bool
    rtol: float
    groups: tuple[GroupTrace, ...]
    seed: int
    cost: Cost
    reason: str = field(default="", metadata=_ABSENT)
    gauss_newton: TracePart | None = field(default=None, metadata=_ABSENT)
    residual: TracePart | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True)
class GapRow:
    """One noise level: the loss gained, beside what sigma^2/2 Tr[H] predicts. ``sigma`` in units of the weights.

    ``remainder`` is the mean over draws of the gap less U^T H U / 2 of the same U: gap - predicted without the noise
    of the quadratic term. With fresh noise for each batch gap is predicted + remainder.
    """

    sigma: float
    gap: float
    std: float | None
    stderr: float
    predicted: float
    predicted_stderr: float
    relative_deviation: float | None
    relative_deviation_stderr: float | None
    remainder: float | None = field(default=None, metadata=_ABSENT)
    remainder_stderr: float | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error."""

    value: float
    stderr: float


@dataclass(frozen=True)
class GapFit:
    """What gap/sigma^2 is made of over the window of sigmas in use: gap/sigma^2 = hessian + kinks + higher_order.

    ``hessian`` is Tr[H]/2; ``kinks`` the part that does not vanish over the window and that Tr[H] does not explain;
    ``higher_order`` the part that grows with sigma^2, at the largest sigma. All in units of loss over sigma^2.
    """

    hessian: Estimate
    kinks: Estimate
    higher_order: Estimate


@dataclass(frozen=True)
class SigmaSearch:
    """The largest sigma found at which gap and sigma^2/2 Tr[H] agree within ``tolerance``; None: there is none.

    ``tried`` is the range of sigmas that were tried. Not ``converged``: some were left open, or the time was up.
    """

    tolerance: float
    largest: float | None
    tried: tuple[float, float]
    converged: bool


@dataclass(frozen=True)
class GapResult:
    """The noise gap at several sigmas; ``rss`` is the mean over rows of the squared relative deviation.

    Not ``converged``: ``draws`` were not enough for the deviations' standard errors to meet ``rtol``.
    """

    distribution: str
    estimator: str
    noise: str
    draws: int
    rss: float | None
    rows: tuple[GapRow, ...]
    seed: int
    cost: Cost
    fit: GapFit | None = field(default=None, metadata=_ABSENT)
    search: SigmaSearch | None = field(default=None, metadata=_ABSENT)
    converged: bool = True


@dataclass(frozen=True)
class DensityResult:
    """The spectral density on a grid, normalised to integrate to one.

    ``nodes`` and ``weights`` are the raw Gauss quadrature, so that any function of the spectrum,
    (1/n) sum f(lambda_i) ~ sum weights * f(nodes), can be had without measuring again.
    """

    grid: tuple[float, ...]
    density: tuple[float, ...]
    steps: int
    probes: int
    bandwidth: float
    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    seed: int
    cost: Cost


@dataclass(frozen=True)
class CrosscheckRow:
    """One quantity beside a reference; ``difference`` in the unit that ``tolerance`` names (see ``unit``)."""

    quantity: str
    value: float
    reference: float | None
    reference_name: str
    difference: float | None
    tolerance: float
    unit: Literal["relative", "standard errors"]
    agrees: bool | None
    note: str = ""


@dataclass(frozen=True)
class CrosscheckResult:
    """Our numbers beside an independent implementation's; a row that could not be had says why in ``note``."""

    rows: tuple[CrosscheckRow, ...]
    seed: int
    cost: Cost


@dataclass(frozen=True)
class CheckpointInfo:
    """Where the weights came from; ``left_out`` names tensors there that stand beside the model's."""

    path: str
    format: str
    sha256: str
    left_out: tuple[str, ...] = field(default=(), metadata=_ABSENT)


@dataclass(frozen=True)
class EngineInfo:
    """How batches are differentiated twice; ``relative_error`` is the engine's own estimate where it has one."""

    name: str
    relative_error: float | None = None


@dataclass(frozen=True)
class Target:
    """What was measured: ``parameters`` of ``parameters_total`` were selected."""

    checkpoint: CheckpointInfo | None
    parameters: int
    parameters_total: int
    dtype: str
    device: str
    engine: EngineInfo | None = None


@dataclass(frozen=True)
class DataInfo:
    """The data: ``weight`` is the loss's denominator (examples, valid tokens, sum of class weights)."""

    examples: int
    weight: float
    batches: int
    fingerprint: str


@dataclass(frozen=True)
class Caution:
    """What a reader must not miss, and the section that it is about; "" for the whole report."""

    text: str
    section: str = ""

    def __str__(self) -> str:
        return f"{self.section}: {self.text}" if self.section else self.text

    @classmethod
    def read(cls, line: str) -> Caution:
        """From the line that a report document has of it."""
        section, colon, text = line.partition(": ")
        return cls(text, section) if colon and section in SECTIONS else cls(line)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that one command measured, and what it measured it on."""

    version: str = __version__
    command: str
    status: Status
    target: Target
    data: DataInfo
    loss: float | None = None
    gradient_norm: float | None = None
    eigenvalues: EigenvaluesResult | None = None
    trace: TraceResult | None = None
    gap: GapResult | None = None
    density: DensityResult | None = None
    crosscheck: CrosscheckResult | None = None
    cost: Cost = Cost()
    seed: int
    warnings: tuple[Caution, ...] = field(default=(), metadata=_ABSENT)
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the sections that were measured."""
        return tuple(name for name in SECTIONS if getattr(self, name) is not None)

    def to_dict(self) -> dict[str, Any]:
        """The report document (schema ``hessdiag/report@1``), ready for ``json.dumps``."""
        measured = {key: value for key, value in plain(self).items() if value is not None}
        if self.warnings:
            measured["warnings"] = [str(caution) for caution in self.warnings]
        return {"schema": SCHEMA} | measured

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Report:
        """Read a report document back.

        Raises:
            ValueError: the document is not a ``hessdiag/report@1``.
        """
        from pydantic import TypeAdapter

        found = document.get("schema") if isinstance(document, Mapping) else None
        if found != SCHEMA:
            raise ValueError(f"found schema {found!r}, expected {SCHEMA!r}")
        body = {key: value for key, value in document.items() if key != "schema"}
        if isinstance(body.get("warnings"), list):
            body["warnings"] = [Caution.read(line) if isinstance(line, str) else line for line in body["warnings"]]
        return TypeAdapter(cls).validate_python(body)


def plain(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists, numbers that JSON does not have to None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: plain(item) for f, item in items if not ("absent" in f.metadata and item == f.default)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
