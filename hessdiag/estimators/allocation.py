"""How many samples to take of each part of a sum, so that the sum is known well enough for the least work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

__all__ = ["Sampled", "counts_for", "degrees_together", "half_width", "neyman", "partition", "sets_apart"]

_GAIN = 0.8  # of the work, or the tensors stay together
_ROUNDING = 1e-10  # of a column's squared norm: a block below this is zero
_MARGIN = 1.1  # on the variance planned for: a plan that just fails costs another look


@dataclass(frozen=True)
class Sampled:
    """One part of a sum: what is known of it from ``taken`` samples.

    Attributes:
        variance: of one sample.
        degrees: of freedom of that variance.
        taken: samples there are, at least 1.
        cost: of one sample, in gradients.
    """

    variance: float
    degrees: float
    taken: int
    cost: float


def half_width(parts: Sequence[Sampled], counts: np.ndarray, level: float) -> float:
    """Half of Student's interval at ``level`` of the sum of the parts' means, with ``counts`` samples of each.

    Degrees of freedom are taken to grow as the samples do.
    """
    variances = np.array([part.variance for part in parts]) / counts
    growth = [(n - 1) / max(part.taken - 1, 1) for part, n in zip(parts, counts.tolist(), strict=True)]
    known = [part.degrees * more if part.variance > 0 else 0.0 for part, more in zip(parts, growth, strict=True)]
    degrees = degrees_together(variances, np.array(known))
    quantile = special.stdtrit(min(degrees, 1e9), 0.5 + level / 2)
    return float(quantile) * math.sqrt(float(variances.sum()))


def degrees_together(variances: np.ndarray, degrees: np.ndarray) -> float:
    """Degrees of freedom of a sum of independent estimates of variances, (k,) each, with ``degrees``.

    Welch's second form, (sum V)^2 / sum V^2/(f + 2) - 2: the first, (sum V)^2 / sum V^2/f, comes out three times too
    small where every f is 1, because V^2 is then mostly error. Never less than the smallest f.

    Source: Welch 1947, Biometrika 34, 28.
    """
    variances, degrees = variances[variances > 0], degrees[variances > 0]
    if not len(variances):
        return math.inf
    shares = variances / variances.sum()
    return max(1 / max(float((shares**2 / (degrees + 2)).sum()), 1e-9) - 2, float(degrees.min()))


def counts_for(parts: Sequence[Sampled], wanted: float, level: float) -> np.ndarray:
    """Counts n_k of samples of each part, (k,), for which the half-width will be ``wanted`` > 0, for the least work."""
    wanted /= math.sqrt(_MARGIN)
    target = (wanted / float(special.ndtri(0.5 + level / 2))) ** 2
    while (width := half_width(parts, counts := neyman(parts, target), level)) > wanted:
        target *= min((wanted / width) ** 2, 0.999)
    return counts


def neyman(parts: Sequence[Sampled], target: float) -> np.ndarray:
    """The counts n_k, no less than were taken, that bring sum_k variance_k / n_k down to ``target`` for the least work.

    n_k ~ sqrt(variance_k / cost_k); a part of which more than that was taken already keeps what it has, and the
    others share the variance that is left.

    Source: Neyman 1934, J. R. Statist. Soc. 97, 558.
    """
    variances, costs = np.array([part.variance for part in parts]), np.array([part.cost for part in parts])
    counts = np.array([part.taken for part in parts], dtype=np.float64)
    free = variances > 0
    while free.any():
        left = target - float((variances[~free] / counts[~free]).sum())
        wanted = np.sqrt(variances / costs) * (float(np.sqrt(variances * costs)[free].sum()) / left)
        settled = free & (wanted <= counts)
        if not settled.any():
            counts[free] = wanted[free]
            break
        free &= ~settled  # more variance is left for the others: fewer samples of them, and perhaps more settled
    return np.ceil(counts)


def sets_apart(blocks: np.ndarray, first: int, probes: int) -> tuple[list[list[int]], float]:
    """Sets of tensors for probes that live on one set at a time, and their share of the work; ([], 1.0): stay together.

    Args:
        blocks: squared norms ||R_gh||_F^2, (g, g). A tensor whose own block is zero is in no set.
        first: probes that any set takes.
        probes: that are needed, or can be had, on all tensors together.
    """
    together = math.sqrt(2 * float(blocks.sum()))
    if not together:
        return [], 1.0
    needed = _with_a_block(blocks)
    least = first / probes * together
    sets = [[needed[index] for index in some] for some in partition(blocks[np.ix_(needed, needed)], least)]
    spreads = [max(math.sqrt(2 * float(blocks[np.ix_(some, some)].sum())), least) for some in sets]
    share = (sum(spreads) / together) ** 2
    return (sets, share) if share <= _GAIN else ([], 1.0)


def _with_a_block(blocks: np.ndarray) -> list[int]:
    """The tensors whose own block may not be zero; one that no example used is among them."""
    column = blocks.max(0)
    return [g for g in range(len(blocks)) if column[g] == 0 or blocks[g, g] > _ROUNDING * column[g]]


def partition(blocks: np.ndarray, least: float = 0.0) -> list[list[int]]:
    """Sets of indices for which probes that live on one set at a time are the least work in all.

    The quadratic form of a Rademacher probe that lives on a set S has variance V_S = 2 sum_{g,h in S} ||R_gh||_F^2
    (off-diagonal entries alone), so that blocks between sets never count. With the best allocation the work for a
    given error is (sum_S sqrt V_S)^2. Sets grow from single indices, each time by the union that saves most.

    Args:
        blocks: squared norms ||R_gh||_F^2, (g, g).
        least: what any set counts at least, in units of sqrt V: it takes a few probes in any case.
    """
    sets = [[index] for index in range(len(blocks))]
    inside, between = np.diag(blocks).copy(), blocks + blocks.T
    while len(sets) > 1:
        work = np.maximum(np.sqrt(2 * inside), least)
        united = np.maximum(np.sqrt(2 * (inside[:, None] + inside + between)), least)
        saved = work[:, None] + work - united
        np.fill_diagonal(saved, -np.inf)
        first, second = sorted(divmod(int(saved.argmax()), len(sets)))
        if saved[first, second] <= 0:
            break
        sets[first] += sets.pop(second)
        inside[first] += inside[second] + between[first, second]
        between[first] += between[second]
        between[:, first] += between[:, second]
        inside = np.delete(inside, second)
        between = np.delete(np.delete(between, second, 0), second, 1)
    return sets
