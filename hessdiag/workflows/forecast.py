"""What the sections will cost, roughly, told before they begin."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hessdiag.cost import Cost
from hessdiag.spec.schema import AuditSpec, DensitySpec, EigenvaluesSpec, GapSpec, TraceSpec

__all__ = ["forecast"]

_PRODUCT = 2.5  # gradients that a product takes: 2 to 3 with the batch's graph shared
_FORWARD = 1 / 3  # of a gradient


def forecast(
    settings: AuditSpec, sections: Collection[str], seconds_per_gradient: float, *, split: bool = False
) -> Cost:
    """Typical passes of each section, and the seconds that they take at the speed of one gradient.

    The typical numbers are those of trained networks of 2,000 to 100,000 weights (the fixtures): half or twice as
    much is nothing unusual, and a network at its initialisation may take many times more for its trace.

    Args:
        settings: how closely each section is measured.
        sections: those that are measured.
        seconds_per_gradient: measured on this problem.
        split: whether the loss has a Gauss-Newton part, by which the trace is cheap.
    """
    cost = sum((_PASSES[name](getattr(settings, name)) for name in sections if name != "trace"), Cost())
    if "trace" in sections and settings.trace is not None:
        cost += _trace(settings.trace, split)
    gradients = cost.forward * _FORWARD + cost.gradient + cost.hvp * _PRODUCT
    return cost + Cost(seconds=gradients * seconds_per_gradient)


def _eigenvalues(plan: EigenvaluesSpec) -> Cost:
    wanted = plan.top + plan.bottom
    products = 3 * wanted + 8 if plan.method == "lanczos" else 60 * wanted
    return Cost(hvp=min(products, plan.max_matvecs))


def _trace(plan: TraceSpec, split: bool) -> Cost:
    # The interval is about 2.6 standard errors wide on each side. Relative to the trace a draw of the Gauss-Newton
    # part spreads by 5 %, a probe of the residual part by 3 %, one of the whole by 16 %.
    if split and plan.method in ("auto", "gauss-newton"):
        draws, probes = (max(4, round((2.6 * spread / plan.rtol) ** 2)) for spread in (0.05, 0.03))
        return Cost(gradient=min(draws, plan.max_matvecs), hvp=min(probes, plan.max_matvecs))
    products = max(16, round((2.6 * 0.16 / plan.rtol) ** 2))
    return Cost(hvp=min(products, plan.max_matvecs))


def _gap(plan: GapSpec) -> Cost:
    sides = 2 if plan.estimator == "two-sided" else 1
    sigmas = 10 if plan.sigma == "auto" else len(plan.sigma)
    draws = min(plan.draws, 32) if plan.noise == "per-batch" and plan.rtol else plan.draws
    return Cost(forward=1 + draws * sigmas * sides, hvp=draws)


def _density(plan: DensitySpec) -> Cost:
    return Cost(hvp=plan.steps * plan.probes)


_PASSES: dict[str, Callable[..., Cost]] = {
    "eigenvalues": _eigenvalues,
    "gap": _gap,
    "density": _density,
}
