"""What is measured: the key ``audit`` of a spec."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from hessdiag.results import SECTIONS
from hessdiag.spec.fields import (
    NonNegative,
    Positive,
    StrictModel,
    Whole0,
    Whole1,
    Whole2,
    Whole16,
    expected,
    one_of,
)
from hessdiag.spec.names import (
    DEFAULT_SIGMAS,
    FEWEST_MATVECS,
    Distribution,
    EigenvalueMethod,
    GapEstimator,
    GapNoise,
    TraceMethod,
)
from hessdiag.spec.quantities import (
    MEMORY_FORMS,
    MEMORY_PATTERN,
    TIME_FORMS,
    TIME_PATTERN,
    parse_memory,
    parse_time,
)
from hessdiag.spec.sigmas import SIGMA_FORMS, check_distinct, parse_sigmas

__all__ = ["AuditSpec", "DensitySpec", "EigenvaluesSpec", "GapSpec", "TraceSpec"]


class EigenvaluesSpec(StrictModel):
    """Extreme eigenvalues."""

    top: Whole1 = Field(default=5, description="How many from the algebraically largest down.")
    bottom: Whole0 = Field(default=1, description="How many from the algebraically smallest up.")
    method: Annotated[EigenvalueMethod, one_of(EigenvalueMethod)] = Field(
        default="lanczos", description="How they are found."
    )
    rtol: Positive = Field(default=1e-3, description="Residual at most rtol times the largest |eigenvalue| found.")
    max_matvecs: Whole1 = Field(default=500, description="The most Hessian-vector products.")

    @field_validator("max_matvecs")
    @classmethod
    def _enough_products(cls, allowed: int, info: ValidationInfo) -> int:
        """One product to find and one to confirm each eigenvalue."""
        wanted = info.data.get("top", 0) + info.data.get("bottom", 0)
        if allowed < 2 * wanted:
            raise expected(
                f"at least {2 * wanted}: one product to find and one to confirm each of {wanted} eigenvalues"
            )
        return allowed


class TraceSpec(StrictModel):
    """The trace, whole and by parameter group."""

    method: Annotated[TraceMethod, one_of(TraceMethod)] = Field(
        default="auto",
        description="How it is estimated; auto takes the Gauss-Newton split where the loss has one, elsewhere what a "
        "pilot finds the cheapest.",
    )
    rtol: Positive = Field(
        default=0.05, description="Stop when the half-width of the 95 % interval is at most rtol times |value|."
    )
    max_matvecs: Whole2 = Field(default=2000, description="The most passes over the data: products and gradients.")

    @field_validator("max_matvecs")
    @classmethod
    def _enough_passes(cls, allowed: int, info: ValidationInfo) -> int:
        """For a standard error."""
        method = info.data.get("method", "auto")
        if allowed < FEWEST_MATVECS[method]:
            raise expected(f"at least {FEWEST_MATVECS[method]} for method {method}")
        return allowed


def _read_sigma(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() if value.strip() == "auto" else parse_sigmas(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise expected(SIGMA_FORMS)
    return value


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    check_distinct(values)
    return values


_SCALE = r"\s*\+?[0-9.]+([eE][-+]?[0-9]+)?\s*"
_SCALE_SCHEMA = {"type": "number", "exclusiveMinimum": 0}

Sigmas = Annotated[
    Annotated[tuple[Positive, ...], Field(strict=False, min_length=1), AfterValidator(_distinct), Tag("<scales>")]
    | Annotated[Literal["auto"], Tag("<auto>")],
    Discriminator(lambda value: "<auto>" if isinstance(value, str) else "<scales>"),
    BeforeValidator(_read_sigma),
    WithJsonSchema(
        {
            "anyOf": [
                _SCALE_SCHEMA,
                {"type": "array", "items": _SCALE_SCHEMA, "minItems": 1, "uniqueItems": True},
                {"type": "string", "pattern": f"^({_SCALE}(:{_SCALE}:\\s*[0-9]+\\s*|(,{_SCALE})*)|\\s*auto\\s*)$"},
            ],
        }
    ),
]


class GapSpec(StrictModel):
    """The noise gap F(W) - f(W) against sigma^2/2 Tr[H]."""

    sigma: Sigmas = Field(
        default=DEFAULT_SIGMAS,
        description='Noise scales, in units of the weights: a number, a list, "start:stop:count", "0.02,0.03"; '
        "auto: up to the largest at which the approximation holds within 3 %.",
    )
    draws: Whole2 = Field(default=100, description="The most noise draws.")
    rtol: NonNegative | None = Field(
        default=0.01,
        description="With noise per-batch: stop when the standard error of every relative deviation that is due to the "
        "draws is at most this; 0 or null: take all draws.",
    )
    noise: Annotated[GapNoise, one_of(GapNoise)] = Field(
        default="per-batch",
        description="Fresh noise for each batch (the same mean, less variance), or one for the whole data.",
    )
    estimator: Annotated[GapEstimator, one_of(GapEstimator)] = Field(
        default="two-sided", description="(f(W+U) + f(W-U))/2 - f(W), or f(W+U) - f(W)."
    )
    distribution: Annotated[Distribution, one_of(Distribution)] = Field(
        default="gaussian", description="The noise; each has variance sigma^2."
    )
    compile: bool = Field(
        default=False,
        description="Take the model through torch.compile for the forward passes: pays where they take minutes.",
    )

    @field_validator("estimator")
    @classmethod
    def _two_sided_for_auto(cls, estimator: str, info: ValidationInfo) -> str:
        if info.data.get("sigma") == "auto" and estimator != "two-sided":
            raise expected("two-sided, because sigma is auto")
        return estimator


class DensitySpec(StrictModel):
    """The spectral density by stochastic Lanczos quadrature."""

    steps: Whole2 = Field(default=80, description="Lanczos steps for each probe.")
    probes: Whole1 = Field(default=4, description="Random probes.")
    points: Whole16 = Field(default=256, description="Points of the grid on which the density is given.")


def _read_quantity(parse: Callable[[str], float], least: float, forms: str) -> BeforeValidator:
    """A number in the base unit, or a text that ``parse`` reads."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
            raise expected(forms)
        return type(least)(value)

    return BeforeValidator(read)


_LEAST_TIME = 5e-324  # the least float above 0

Seconds = Annotated[
    float,
    _read_quantity(parse_time, _LEAST_TIME, TIME_FORMS),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": TIME_PATTERN}]}),
]
Bytes = Annotated[
    int,
    _read_quantity(parse_memory, 1, MEMORY_FORMS),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1}, {"type": "string", "pattern": MEMORY_PATTERN}]}),
]


class AuditSpec(StrictModel):
    """What is measured; null skips a part."""

    eigenvalues: EigenvaluesSpec | None = Field(default=EigenvaluesSpec(), description="Extreme eigenvalues.")
    trace: TraceSpec | None = Field(default=TraceSpec(), description="The trace.")
    gap: GapSpec | None = Field(default=GapSpec(), description="The noise gap.")
    density: DensitySpec | None = Field(default=None, description="The spectral density; omitted: skipped.")
    max_time: Seconds | None = Field(
        default=None,
        description="End with what is measured after this time: seconds, or as 10m or 2h; such a run does not repeat.",
    )
    memory: Bytes | None = Field(
        default=None,
        description="The most that eigenvalues and density may take for vectors, each: bytes, or as 500MB or 4GiB; "
        "omitted: half of what is free.",
    )

    def only(self, sections: Collection[str]) -> AuditSpec:
        """These sections and no others; one that the spec skips is measured with its defaults."""
        chosen: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if name in SECTIONS:
                kind = get_args(field.annotation)[0]  # of `kind | None`
                chosen[name] = (getattr(self, name) or kind()) if name in sections else None
        return self.model_copy(update=chosen)
