"""The problem: the mean loss over the whole chosen data as a function of the selected weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessdiag.cost import Meter
from hessdiag.errors import DataError, HessdiagError, MeasurementError, UsageError
from hessdiag.losses import Loss, ModelLoss, as_loss
from hessdiag.memory import available_memory, memory_errors_explained, out_of_memory
from hessdiag.problem.as_found import as_found, weights_restored
from hessdiag.problem.backends import exact_backends
from hessdiag.problem.batches import Batch, Fingerprint, read_batch
from hessdiag.problem.determinism import find_random_module
from hessdiag.problem.selection import plain_name, select_parameters
from hessdiag.results import CheckpointInfo, DataInfo

__all__ = ["Group", "Problem"]

_CACHE_SHARE = 0.25  # of the free memory may hold the batches, so that they are read once


@dataclass(frozen=True)
class Group:
    """One parameter tensor's stretch of the flat vector."""

    name: str
    size: int


@dataclass(frozen=True)
class _Survey:
    """What one evaluation of the loss over the data saw: for each batch its sum, and all that adds up."""

    totals: tuple[float, ...]
    weight: float
    examples: int
    fingerprint: str
    batches: list[Batch] | None


class Problem:
    """f(w) = sum over batches of totals / sum of counts, as a function of the selected weights w in R^n.

    Everything is measured in evaluation mode, and the model is left as it was found: weights, gradients,
    buffers, flags, requires_grad and random state, also after an exception. Making a problem evaluates the
    loss twice, which refuses models and data that are random.

    Args:
        model: any ``nn.Module``; a ``torch.compile`` wrapper is looked through.
        loss: a name (``"cross_entropy"``, ...), a loss of :mod:`hessdiag.losses`, one of torch's, or a
            function ``(outputs, targets)`` that returns unit losses, ``(sum, count)``, or a mean.
        data: a re-iterable of batches (a DataLoader, a list): ``(inputs, targets)`` or mappings.
        include: glob patterns over parameter names; those that require a gradient are measured.
        exclude: patterns that take away from them.
        checkpoint: where the weights came from, for the report.

    Attributes:
        n: the number of selected weights, the order of the Hessian.
        groups: the selected tensors in the order of the flat vector.
        loss_value: f(w).
        weight: the loss's denominator over the whole data.
        dtype: of flat vectors; float32 for half-precision models.
        meter: counts what is spent.

    Raises:
        MeasurementError: nothing selected, weights or loss not finite, a random model.
        DataError: no data, data of an unknown form, targets that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | Loss | Callable[[Any, Any], Any],
        data: Iterable[Any],
        *,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        checkpoint: CheckpointInfo | None = None,
    ) -> None:
        _refuse_what_is_read_once(data)
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self.loss = as_loss(loss)
        self.checkpoint = checkpoint
        self.parameters = select_parameters(self.model, include, exclude)
        self.groups = tuple(Group(plain_name(name), p.numel()) for name, p in self.parameters.items())
        self.n = sum(group.size for group in self.groups)
        self.device, self.model_dtype = _one_place(self.parameters)
        self.dtype = torch.float64 if self.model_dtype is torch.float64 else torch.float32
        _refuse_bad_weights(self.model)
        _refuse_shared_memory(self.parameters)
        self._places = _places(self.model, self.parameters)
        self._data, self.include, self.exclude = data, tuple(include), tuple(exclude)
        self._cached: list[Batch] | None = None
        self._measuring = False
        self._survey()

    # -- the data ------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The batches of the spec, in order, on the model's device and in its dtype."""
        if self._cached is not None:
            yield from self._cached
            return
        for batch in self._read():
            yield batch.on(self.device, self.model_dtype)

    def _read(self) -> Iterator[Batch]:
        keep = isinstance(self.loss, ModelLoss)
        index = 0
        try:
            for index, raw in enumerate(self._data):
                yield read_batch(raw, index, keep_targets_in=keep)
        except (HessdiagError, MemoryError):
            raise
        except Exception as error:  # whatever a user's data set raises
            if out_of_memory(error):
                raise
            raise DataError(
                f"the data could not be read, at batch {index} or the next: {type(error).__name__}: {error}"
            ) from error

    # -- the loss ------------------------------------------------------------------------------------------

    def batch_totals(self, batch: Batch, weights: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """``(total, count)`` of one batch: the sum of its unit losses with its graph, and its denominator.

        Args:
            batch: one of :meth:`batches`.
            weights: other tensors in place of some parameters (for function transforms).
        """
        outputs = self._outputs(batch, weights)
        return self.loss(outputs, batch.targets, batch.examples)

    def _outputs(self, batch: Batch, weights: dict[str, Tensor] | None = None) -> Any:
        args, kwargs = self._call(batch)
        if weights is None:
            outputs = self.model(*args, **kwargs)
        else:
            placed = {place: weights[name] for name, places in self._places.items() for place in places}
            outputs = functional_call(self.model, placed, args, kwargs, tie_weights=False)
        return outputs if isinstance(self.loss, ModelLoss) else _logits(outputs)

    def _call(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = batch.inputs
        missing = isinstance(self.loss, ModelLoss) and batch.targets is not None and batch.key is None
        if isinstance(inputs, dict):
            return (), inputs | {"labels": batch.targets} if missing else inputs
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        return (*args, batch.targets) if missing else args, {}

    def gradient(self) -> Tensor:
        """Grad f(w), shape (n,), summed over batches in float64."""
        with self.measuring():
            sum_of = torch.zeros(self.n, dtype=torch.float64, device=self.device)
            self.differentiable_batch()
            for batch in self.batches():
                sum_of += self.batch_gradient(batch)
                self.meter.add("gradient", 1)
        return (sum_of / self.weight).to(self.dtype)

    def batch_gradient(self, batch: Batch) -> Tensor:
        """The gradient of one batch's total, shape (n,)."""
        total, _ = self.batch_totals(batch)
        if not total.requires_grad:
            return torch.zeros(self.n, dtype=self.dtype, device=self.device)
        return self.flatten(torch.autograd.grad(total, list(self.parameters.values()), allow_unused=True))

    def differentiable_batch(self) -> Batch:
        """The first batch whose total depends on the selected weights (one without valid targets may not).

        Raises:
            MeasurementError: there is none; zeros would look like a flat minimum.
        """
        for batch in self.batches():
            if self.batch_totals(batch)[0].requires_grad:
                return batch
        raise MeasurementError(
            f"the loss does not depend on any of the {len(self.parameters)} selected parameters (first: "
            f"{self.groups[0].name}), so there is nothing to differentiate: select parameters that the model uses, "
            "and look for .detach(), .item() or torch.no_grad() in its forward"
        )

    def in_float64(self) -> Problem:
        """The same problem on a float64 copy of the model."""
        model = copy.deepcopy(self.model).double()
        return Problem(model, self.loss, self._data, include=self.include, exclude=self.exclude)

    # -- flat vectors --------------------------------------------------------------------------------------

    def flatten(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One vector (n,) from one tensor per selected parameter; None stands for zeros."""
        return torch.cat(
            [
                torch.zeros(group.size, dtype=self.dtype, device=self.device)
                if tensor is None
                else tensor.reshape(-1).to(self.dtype)
                for tensor, group in zip(tensors, self.groups, strict=True)
            ]
        )

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """The vector (n,) as one tensor per selected parameter, in the model's dtype."""
        parts = torch.split(vector.to(self.model_dtype), [group.size for group in self.groups])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters.values(), strict=True)]

    # -- leave it as you found it --------------------------------------------------------------------------

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Evaluation mode, exact kernels, gradients for the selected weights; all put back afterwards."""
        if self._measuring:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(memory_errors_explained())
            stack.enter_context(as_found(self.model, self.parameters.values()))
            stack.enter_context(exact_backends(self.model, self.device))
            self._measuring = True
            try:
                yield
            finally:
                self._measuring = False

    @contextmanager
    def displacing(self) -> Iterator[Callable[[Sequence[Tensor], float], None]]:
        """Give a function that sets the weights to w + scale * direction; w is restored from a copy.

        The direction comes as one tensor per selected parameter (:meth:`unflatten`).
        """
        parameters = list(self.parameters.values())
        with self.measuring(), weights_restored(parameters) as saved:

            def displace(direction: Sequence[Tensor], scale: float) -> None:
                with torch.no_grad():
                    for parameter, origin, step in zip(parameters, saved, direction, strict=True):
                        torch.add(origin, step, alpha=scale, out=parameter.data)

            yield displace

    # -- the first look ------------------------------------------------------------------------------------

    def _survey(self) -> None:
        """Evaluate the loss twice: the value and the denominators, and that they do not change."""
        self.meter = Meter()
        with self.measuring(), torch.no_grad():
            first = self._evaluate(keep=False)
            second = self._evaluate(keep=True)
            self._refuse_randomness(first, second)
        self.weight, self.examples = first.weight, first.examples
        self.loss_value = math.fsum(first.totals) / first.weight
        self._cached = second.batches
        self.data_info = DataInfo(first.examples, first.weight, len(first.totals), first.fingerprint)
        self.meter = Meter(len(first.totals))
        self.meter.add("forward", 2 * len(first.totals))

    def _evaluate(self, keep: bool) -> _Survey:
        """One pass over the data; ``keep`` gathers the batches as long as they fit."""
        totals: list[float] = []
        counts: list[float] = []
        examples, fingerprint = 0, Fingerprint()
        kept: list[Batch] | None = [] if keep else None
        room = available_memory(self.device) * _CACHE_SHARE
        for raw in self._read():
            fingerprint.add(raw)
            batch = raw.on(self.device, self.model_dtype)
            total, count = self._checked_totals(batch)
            totals.append(total)
            counts.append(count)
            examples += batch.examples
            room -= batch.nbytes()
            if kept is not None and room > 0:
                kept.append(batch)
            else:
                kept = None
        weight = math.fsum(counts)
        if not totals or examples == 0:
            raise DataError("the data hold no examples, expected at least one")
        if not weight > 0:
            raise DataError(
                f"the {examples} examples have a total weight of {weight:g}: every target is ignored "
                "(ignore_index), or has class weight 0"
            )
        return _Survey(tuple(totals), weight, examples, fingerprint.digest(), kept)

    def _checked_totals(self, batch: Batch) -> tuple[float, float]:
        try:
            versions = batch.versions()
            outputs = self._outputs(batch)
            if batch.versions() != versions:
                raise MeasurementError(
                    f"the model changes its inputs in place (batch {batch.index}: {batch.shapes()}), so that the next "
                    "evaluation would see other data: let it work on a copy (x = x.clone())"
                )
            self.loss.check(outputs, batch.targets)
            total, count = self.loss(outputs, batch.targets, batch.examples)
        except HessdiagError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            raise MeasurementError(
                f"the model or the loss failed on batch {batch.index} (inputs: {batch.shapes()}): "
                f"{type(error).__name__}: {error}"
            ) from error
        value = float(total)
        if not math.isfinite(value):
            raise MeasurementError(
                f"the loss is {value} on batch {batch.index}, expected a finite number: "
                "look at the data of that batch, or at the dtype"
            )
        return value, float(count)

    def _refuse_randomness(self, first: _Survey, second: _Survey) -> None:
        if first.fingerprint != second.fingerprint or len(first.totals) != len(second.totals):
            raise DataError(
                "the data change from one pass to the next (random augmentation, or shuffling), so that "
                "there is no one loss to differentiate: turn augmentation and shuffling off"
            )
        tolerance = min(100 * torch.finfo(self.model_dtype).eps, 1e-3)
        for index, (one, other) in enumerate(zip(first.totals, second.totals, strict=True)):
            if abs(one - other) > tolerance * max(abs(one), abs(other)):
                batch = next(b for b in self.batches() if b.index == index)
                where = find_random_module(self.model, lambda batch=batch: self._outputs(batch))  # type: ignore[misc]
                raise MeasurementError(
                    f"the loss of batch {index} is {one:.9g} once and {other:.9g} the next time: "
                    f"the model is random {where}, although it is in evaluation mode: turn that off"
                )


def _logits(outputs: Any) -> Any:
    """An output with ``.logits`` stands for its logits."""
    if isinstance(outputs, dict) and "logits" in outputs:
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)


def _one_place(parameters: dict[str, nn.Parameter]) -> tuple[torch.device, torch.dtype]:
    for what, places in (
        ("devices", {str(p.device) for p in parameters.values()}),
        ("dtypes", {str(p.dtype).removeprefix("torch.") for p in parameters.values()}),
    ):
        if len(places) > 1:
            raise MeasurementError(
                f"the selected parameters have several {what} ({', '.join(sorted(places))}), expected one: "
                "move the model to one, or select some of them"
            )
    first = next(iter(parameters.values()))
    if first.dtype is torch.float16:
        raise MeasurementError(
            "the model is in float16, whose range a Hessian leaves (above 65504 it is infinite): "
            "measure in float32 (dtype: float32) or bfloat16"
        )
    return first.device, first.dtype


def _refuse_what_is_read_once(data: Any) -> None:
    # Asking iter(data) would start a DataLoader's workers and draw from the random generator.
    if isinstance(data, Iterator):
        raise UsageError(
            f"data: found a {type(data).__name__}, which can be read once; expected what can be read again: "
            "a list of batches, a DataLoader, ..."
        )
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise UsageError(f"data: found a {type(data).__name__}, expected batches: a list, a DataLoader, ...")


def _places(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, list[str]]:
    """Every place of each parameter, for replacing it: a tied one has several.

    A module under two names counts once: torch's own ``tie_weights`` would leave its replacement in it.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    places: dict[str, list[str]] = {name: [] for name in parameters}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if id(parameter) in names:
                places[names[id(parameter)]].append(f"{path}.{name}" if path else name)
    return places


def _refuse_shared_memory(parameters: dict[str, nn.Parameter]) -> None:
    seen: dict[int, str] = {}
    for name, parameter in parameters.items():
        other = seen.setdefault(parameter.data_ptr(), name) if parameter.numel() else name
        if other != name:
            raise MeasurementError(
                f"parameters {other} and {name} are two that share one memory, so that neither can change alone: "
                "tie them as one nn.Parameter, or exclude one of them"
            )


def _refuse_bad_weights(model: nn.Module) -> None:
    parameters, buffers = list(model.named_parameters()), list(model.named_buffers())
    bad = [name for name, p in parameters if not bool(p.isfinite().all())]
    bad += [name for name, buffer in buffers if bool(buffer.isnan().any())]  # infinity is usual in attention masks
    if bad:
        raise MeasurementError(
            f"{len(bad)} of the model's {len(parameters) + len(buffers)} tensors hold NaN or infinite values "
            f"(first: {bad[0]}): "
            "the checkpoint was saved from a diverged run, take an earlier one"
        )
