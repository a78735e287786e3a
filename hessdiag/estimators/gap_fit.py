"""What the noise gap is made of: the Hessian's share, that of the kinks, and that of higher orders."""

from __future__ import annotations

import math

import numpy as np

from hessdiag.estimators.gap_draws import GapDraws, pooled
from hessdiag.results import Estimate, GapFit, TraceResult

__all__ = ["gap_fit"]

_FEWEST = 3  # sigmas: two always lie on a line, which says nothing about whether it is one


def gap_fit(drawn: GapDraws, trace: TraceResult) -> GapFit | None:
    """gap/sigma^2 = hessian + kinks + higher_order (sigma/largest sigma)^2, by least squares over the sigmas in use.

    A smooth loss gains sigma^2/2 Tr[H] + O(sigma^4), so that the remainder over sigma^2 vanishes with sigma^2. The
    kinks of rectifiers add a part that does not, and that Tr[H] does not see. The same noise at every sigma makes
    the rows' errors dependent: the line is fitted to the remainder of each draw, and averaged. Its standard error
    holds the draws', the loss's rounding, and how far a parabola in sigma^2 would move it: a line is a choice.

    Returns:
        None with fewer than three sigmas, where no exact products were to be had, and for the many octaves of a
        search that found no sigma.

    Source: arXiv 2306.08553, section 2; the kinks' share of two layers in closed form is a test's oracle.
    """
    searched_in_vain = drawn.search is not None and drawn.search.largest is None
    if drawn.forms is None or len(drawn.sigmas) < _FEWEST or searched_in_vain:
        return None
    squares = np.square(drawn.sigmas)
    slopes = (drawn.gaps - squares[:, None] / 2 * drawn.forms[:, None]) / squares[:, None]
    line, parabola = (_least_squares(squares / squares.max(), degree) for degree in (1, 2))
    curved = parabola @ slopes.sum(2).mean(0)
    bent = (curved[0], curved[1] + curved[2])  # at sigma 0, and from there to the largest
    rounding = line @ (drawn.rounding / squares)
    kinks, higher_order = (
        _estimate(np.einsum("s,dsb->db", weights, slopes), moved_to, float(shaken))
        for weights, moved_to, shaken in zip(line, bent, rounding, strict=True)
    )
    return GapFit(Estimate(trace.value / 2, trace.stderr / 2), kinks, higher_order)


def _least_squares(x: np.ndarray, degree: int) -> np.ndarray:
    """(degree + 1, len(x)): what takes values at x to the coefficients of 1, x, ..., x^degree."""
    weights: np.ndarray = np.linalg.pinv(np.vander(x, degree + 1, increasing=True))
    return weights


def _estimate(values: np.ndarray, moved_to: float, rounding: float) -> Estimate:
    mean, stderr, _ = pooled(values)
    return Estimate(mean, math.hypot(stderr, moved_to - mean, rounding))
