"""The loss gained by weight noise, beside what the trace of the Hessian predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from scipy import stats

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators.gap_draws import FEWEST_DRAWS, SIGNS, GapDraws, GapSample, pooled
from hessdiag.estimators.gap_table import gap_table
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.sigma_search import FIRST_DRAWS, search_sigmas, window
from hessdiag.estimators.steps import OutOfTime, Steps, run, run_together
from hessdiag.estimators.trace import trace_steps
from hessdiag.problem import Problem
from hessdiag.results import GapResult, SigmaSearch, TraceResult
from hessdiag.spec.names import DEFAULT_SIGMAS, Distribution, GapNoise
from hessdiag.spec.sigmas import check_distinct

__all__ = ["DEFAULT_SIGMAS", "gap_steps", "noise_gap", "taken"]

DISTRIBUTIONS: tuple[str, ...] = get_args(Distribution)
NOISES: tuple[str, ...] = get_args(GapNoise)

_FEWEST_DEGREES = 15  # whoever stops on fewer stops on spreads that came out small by chance, with their means

Sigmas = float | Sequence[float] | Literal["auto"]


def noise_gap(
    problem: Problem,
    *,
    sigmas: Sigmas = DEFAULT_SIGMAS,
    draws: int = 100,
    rtol: float | None = 0.01,
    estimator: str = "two-sided",
    distribution: str = "gaussian",
    noise: str = "per-batch",
    compile: bool = False,
    seed: int = 0,
    trace: TraceResult | None = None,
    probes: Probes | None = None,
) -> GapResult:
    """F(w) - f(w) with F(w) = E f(w + U), U of standard deviation sigma per weight, and sigma^2/2 Tr[H] beside it.

    Each draw gives a gap and the remainder of Taylor's formula at the same noise,

        two-sided: R(U) = (f(w+U) + f(w-U))/2 - f(w) - U^T H U / 2,     one-sided: R(U) = f(w+U) - f(w) - U^T H U / 2.

    E R(U) is gap - predicted exactly, without the noise of the quadratic term, which is nearly all there is: R(U)
    shows in some ten draws how far off the approximation is, where the gaps themselves take thousands. One product
    for each draw serves every sigma, because the same draws, scaled, serve every sigma.

    ``noise="per-batch"``: a fresh U for each batch of the data, which leaves the expectation and divides the
    variance by about the number of batches. gap = predicted + remainder, so its error is that of the trace and a
    small one; the draws stop at 8, 16, 32, ... as soon as the remainder is known to ``rtol`` of the prediction.
    ``noise="shared"``: the protocol of the paper's Table 2, one U for the whole data: all ``draws`` are taken,
    the gap is their mean and ``std`` their spread; the remainder stands beside it.

    For a quadratic loss the remainder is zero for every U. Rectifier networks gain more than predicted at any
    sigma, from their kinks: see ``fit``. With products by finite differences, which step over kinks, there is no
    remainder: the gap is the mean over all ``draws``, for either noise.

    Choose two-sided: one-sided keeps the noise of the gradient's term, the more the smaller sigma, for half the
    forward passes.

    Args:
        problem: f, w and the data.
        sigmas: noise levels, in units of the weights; ``auto``: those around the largest at which the
            approximation holds within 3 % (:func:`hessdiag.estimators.sigma_search.search_sigmas`).
        draws: the most draws, at least 2.
        rtol: per-batch noise only: stop when the standard error of every row's deviation that is due to the draws
            is at most this; None or 0 takes all draws.
        estimator: ``two-sided`` or ``one-sided``.
        distribution: ``gaussian``, ``laplace``, ``uniform`` or ``binomial``.
        noise: ``per-batch`` or ``shared``.
        compile: take the model through ``torch.compile`` for the forward passes: ten seconds to a minute of
            preparation; a residual network's passes then take two thirds of their time on a CPU, a transformer's
            hardly less. Losses differ by rounding.
        seed: of the draws.
        trace: Tr[H] where it is known; measured to its defaults otherwise.
        probes: other draws than those of ``seed`` (drawn on another device, say).

    Returns:
        One row for each sigma; ``fit`` with three sigmas or more. ``converged`` is False when ``draws`` were not
        enough for ``rtol``.

    Raises:
        UsageError: a sigma that is not positive, too few draws, an unknown estimator, distribution or noise.
        MeasurementError: the loss is not finite at a displaced point; the model cannot be compiled.

    Source: arXiv 2306.08553, section 2 and Table 2. Cost: for each draw one product and, for each sigma, 2 or 1
    forward passes.
    """
    H = HessianOperator(problem)
    steps = gap_steps(
        H,
        sigmas=sigmas,
        draws=draws,
        rtol=rtol,
        estimator=estimator,
        distribution=distribution,
        noise=noise,
        compile=compile,
        seed=seed,
        probes=probes,
    )
    if trace is None:
        found = run_together(H, {"gap": steps, "trace": trace_steps(H, seed=seed)})
        drawn, trace = found["gap"], found["trace"]
    else:
        drawn = run(H, steps)
    return gap_table(drawn, trace)


def gap_steps(
    H: HessianOperator,
    *,
    sigmas: Sigmas = DEFAULT_SIGMAS,
    draws: int = 100,
    rtol: float | None = 0.01,
    estimator: str = "two-sided",
    distribution: str = "gaussian",
    noise: str = "per-batch",
    compile: bool = False,
    seed: int = 0,
    probes: Probes | None = None,
) -> Steps[GapDraws]:
    """The measuring part of :func:`noise_gap` as steps, to run beside other estimators."""
    problem = H.problem
    _refuse_bad_request(sigmas, draws, rtol, estimator, distribution, noise)
    unit = probes or Probes(
        problem.n, seed=seed, stream=Stream.GAP, distribution=distribution, device=problem.device, dtype=problem.dtype
    )
    sample = GapSample(H, unit, estimator=estimator, per_batch=noise == "per-batch", compile=compile)
    search: SigmaSearch | None = None
    if sigmas == "auto":
        search = yield from _search(sample, problem, draws)
        levels = sample.sigmas if search.largest is None or not search.converged else window(search.largest)
    else:
        levels = _levels(sigmas, problem)
    if search is None or levels != sample.sigmas:
        converged = yield from taken(sample, levels, draws, rtol)
    else:  # the search's own draws are the answer
        converged = search.converged
    if search is not None and sample.taken(levels) < FEWEST_DRAWS:  # the time was up
        levels = sample.sigmas
    count = sample.taken(levels)
    return GapDraws(
        sigmas=levels,
        estimator=estimator,
        distribution=distribution,
        noise=noise,
        gaps=np.stack([sample.gaps(sigma)[:count] for sigma in levels], 1),
        forms=sample.forms[:count] if sample.paired else None,
        rounding=sample.rounding,
        converged=converged,
        seed=seed,
        search=search,
    )


def _search(sample: GapSample, problem: Problem, draws: int) -> Steps[SigmaSearch]:
    if not sample.paired:
        raise MeasurementError(
            "sigma: auto compares the gap with exact products, and this loss has only those by finite differences: "
            "give the sigmas"
        )
    weights = [p.detach().double() for p in problem.parameters.values()]
    size = math.hypot(*(float(torch.linalg.vector_norm(p)) for p in weights)) / math.sqrt(problem.n)
    if size == 0:
        raise MeasurementError("sigma: auto begins at the weights' root mean square, which is 0: give the sigmas")
    search = yield from search_sigmas(sample, largest=size, draws=draws)
    if not sample.sigmas:
        raise MeasurementError(f"gap: the loss is not finite at any noise sigma from {search.tried[0]:g} upwards")
    return search


def taken(sample: GapSample, sigmas: Sequence[float], draws: int, rtol: float | None) -> Steps[bool]:
    """Draw until the deviations are known to ``rtol``; whether they are."""
    stops = bool(rtol) and sample.paired and sample.per_batch
    enough = min(2 * FIRST_DRAWS, draws)
    for size in _looks(draws) if stops else [draws]:
        try:
            yield from sample.take(sigmas, size, expect=max(enough - size, 0) if stops else 0)
        except OutOfTime:
            return False
        _refuse_infinite(sample, sigmas)
        if rtol and stops:
            errors, degrees = zip(*(_deviation_error(sample, sigma) for sigma in sigmas), strict=True)
            error = max(errors)
            if error <= rtol and (min(degrees) >= _FEWEST_DEGREES or size == draws):
                return True
            enough = math.ceil(min(size * (error / rtol) ** 2, draws))
    return not stops


def _looks(draws: int) -> list[int]:
    """8, 16, 32, ... and ``draws``."""
    doubled = [FIRST_DRAWS * 2**k for k in range(draws.bit_length())]
    return [*(size for size in doubled if size < draws), draws]


def _deviation_error(sample: GapSample, sigma: float) -> tuple[float, float]:
    """The draws' error of a row's deviation, as wide as Student's quantile makes it on few draws, and its degrees.

    The prediction is that of the draws' own quadratic forms: the trace may still be under way.
    """
    predicted = sigma**2 / 2 * abs(float(sample.forms.sum(1).mean()))
    _, stderr, degrees = pooled(sample.remainders(sigma))
    widened = stderr * float(stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975))
    return widened / predicted if predicted else math.inf, degrees


def _refuse_infinite(sample: GapSample, sigmas: Sequence[float]) -> None:
    for sigma in sigmas:
        if not np.isfinite(sample.gaps(sigma)).all():
            raise MeasurementError(
                f"gap: the loss is not finite at noise sigma {sigma:g}, expected a finite loss: lower sigma"
            )


def _levels(sigmas: float | Sequence[float], problem: Problem) -> tuple[float, ...]:
    levels = (float(sigmas),) if isinstance(sigmas, (int, float)) else tuple(sigmas)
    if not levels or not all(sigma > 0 and math.isfinite(sigma) for sigma in levels):
        raise UsageError(f"sigma: found {list(levels)}, expected one or more positive numbers")
    try:
        check_distinct(levels)
    except ValueError as error:
        raise UsageError(f"sigma: {error}") from None
    widest = torch.finfo(problem.model_dtype).max
    if max(levels) > widest:
        raise UsageError(f"sigma: found {max(levels):g}, expected at most {widest:g}, the range of the weights' dtype")
    return levels


def _refuse_bad_request(
    sigmas: Sigmas, draws: int, rtol: float | None, estimator: str, distribution: str, noise: str
) -> None:
    if isinstance(sigmas, str) and sigmas != "auto":
        raise UsageError(f"sigma: found {sigmas!r}, expected positive numbers or auto")
    if draws < FEWEST_DRAWS:
        raise UsageError(f"draws: found {draws}, expected at least 2: one draw has no standard error")
    if rtol is not None and not rtol >= 0:
        raise UsageError(f"rtol: found {rtol}, expected a number of at least 0, or None")
    for name, found, allowed in (
        ("estimator", estimator, tuple(SIGNS)),
        ("distribution", distribution, DISTRIBUTIONS),
        ("noise", noise, NOISES),
    ):
        if found not in allowed:
            raise UsageError(f"{name}: found {found!r}, expected one of {', '.join(allowed)}")
    if sigmas == "auto" and estimator != "two-sided":
        raise UsageError("estimator: found 'one-sided', expected two-sided: sigma auto needs it")
