"""The first look at a problem: the loss twice over all the data, its denominators, and that nothing is random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hessdiag.errors import DataError, HessdiagError, MeasurementError
from hessdiag.memory import available_memory, out_of_memory
from hessdiag.problem.batches import Batch, Fingerprint
from hessdiag.problem.determinism import find_random_module
from hessdiag.results import DataInfo

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem

__all__ = ["Survey", "survey"]

_CACHE_SHARE = 0.25  # of the free memory may hold the batches, so that they are read once


@dataclass(frozen=True)
class Survey:
    """What one evaluation of the loss over the data saw: for each batch its sum, and all that adds up."""

    totals: tuple[float, ...]
    weight: float
    examples: int
    fingerprint: str
    batches: list[Batch] | None

    @property
    def loss(self) -> float:
        """The mean over all units."""
        return math.fsum(self.totals) / self.weight

    @property
    def data_info(self) -> DataInfo:
        """What the report says of the data."""
        return DataInfo(self.examples, self.weight, len(self.totals), self.fingerprint)


def survey(problem: Problem) -> Survey:
    """Evaluate the loss twice.

    Returns:
        The second evaluation; its batches are there if they fit into memory.

    Raises:
        DataError: no data, or data that change from one pass to the next.
        MeasurementError: the loss is not finite, or the model is random.
    """
    with problem.measuring(), torch.no_grad():
        first, second = _evaluate(problem, keep=False), _evaluate(problem, keep=True)
        _refuse_randomness(problem, first, second)
    return second


def _evaluate(problem: Problem, *, keep: bool) -> Survey:
    """One pass over the data; ``keep`` gathers the batches as long as they fit."""
    totals: list[float] = []
    counts: list[float] = []
    examples, fingerprint = 0, Fingerprint()
    kept: list[Batch] | None = [] if keep else None
    held: set[int] = set()
    room = available_memory(problem.device) * _CACHE_SHARE
    for raw in problem.read():
        fingerprint.add(raw)
        batch = raw.on(problem.device, problem.model_dtype)
        total, count = _checked_totals(problem, batch)
        totals.append(total)
        counts.append(count)
        examples += batch.examples
        room -= batch.nbytes()
        if kept is not None and room > 0 and held.isdisjoint(batch.memory()):
            kept.append(batch)
            held |= batch.memory()
        else:  # too many to keep, or a loader that fills one buffer again and again: read anew for each pass
            kept = None
    weight = math.fsum(counts)
    if not totals or examples == 0:
        raise DataError("the data hold no examples, expected at least one")
    if not weight > 0:
        raise DataError(
            f"the {examples} examples have a total weight of {weight:g}: every target is ignored "
            "(ignore_index), or has class weight 0"
        )
    return Survey(tuple(totals), weight, examples, fingerprint.digest(), kept)


def _checked_totals(problem: Problem, batch: Batch) -> tuple[float, float]:
    try:
        versions = batch.versions()
        outputs = problem.outputs(batch)
        if batch.versions() != versions:
            raise MeasurementError(
                f"the model changes its inputs in place (batch {batch.index}: {batch.shapes()}), so that the next "
                "evaluation would see other data: let it work on a copy (x = x.clone())"
            )
        problem.loss.check(outputs, batch.targets)
        total, count = problem.loss(outputs, batch.targets, batch.rows)
    except HessdiagError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise MeasurementError(
            f"the model or the loss failed on batch {batch.index} (inputs: {batch.shapes()}): "
            f"{type(error).__name__}: {error}: see that the data fit the model (data.inputs, their shape and type; "
            "data.max_length of texts; model.init_args) and the loss (data.targets); whole-number inputs are not "
            "turned into floating point"
        ) from error
    value = float(total)
    if not math.isfinite(value):
        raise MeasurementError(
            f"the loss is {value} on batch {batch.index}, expected a finite number: "
            "look at the data of that batch, or at the dtype"
        )
    return value, float(count)


def _refuse_randomness(problem: Problem, first: Survey, second: Survey) -> None:
    if first.fingerprint != second.fingerprint or len(first.totals) != len(second.totals):
        raise DataError(
            "the data change from one pass to the next (random augmentation, or shuffling), so that there is no one "
            "loss to differentiate: turn augmentation and shuffling off (a DataLoader needs shuffle=False)"
        )
    tolerance = min(100 * torch.finfo(problem.model_dtype).eps, 1e-3)
    for index, (one, other) in enumerate(zip(first.totals, second.totals, strict=True)):
        if abs(one - other) > tolerance * max(abs(one), abs(other)):
            batch = next(b for b in problem.batches() if b.index == index)
            where = find_random_module(problem.model, lambda batch=batch: problem.outputs(batch))  # type: ignore[misc]
            raise MeasurementError(
                f"the loss of batch {index} is {one:.9g} once and {other:.9g} the next time: "
                f"the model is random {where}, although it is in evaluation mode: turn that off"
            )
