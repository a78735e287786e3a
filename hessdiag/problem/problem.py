"""The problem: the mean loss over the whole chosen data as a function of the selected weights."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessdiag.cost import Meter
from hessdiag.errors import DataError, HessdiagError, MeasurementError
from hessdiag.losses import Loss, ModelLoss, as_loss
from hessdiag.memory import memory_errors_explained, out_of_memory
from hessdiag.problem.as_found import as_found, weights_restored
from hessdiag.problem.backends import exact_backends
from hessdiag.problem.batches import Batch, read_batch
from hessdiag.problem.requirements import (
    one_place,
    refuse_bad_weights,
    refuse_shared_memory,
    refuse_what_is_read_once,
)
from hessdiag.problem.selection import places_of, plain_name, select_parameters
from hessdiag.problem.structure import shallow_copy
from hessdiag.problem.survey import survey
from hessdiag.results import CheckpointInfo

if TYPE_CHECKING:
    from hessdiag.spec.schema import AuditSpec

__all__ = ["Group", "Problem"]


@dataclass(frozen=True)
class Group:
    """One parameter tensor's stretch of the flat vector."""

    name: str
    size: int


class Problem:
    """f(w) = sum over batches of totals / sum of counts, as a function of the selected weights w in R^n.

    Everything is measured in evaluation mode, and the model is left as it was found: weights, gradients,
    buffers, flags, requires_grad and random state, also after an exception. Making a problem evaluates the
    loss twice, which refuses models and data that are random.

    Args:
        model: any ``nn.Module``; a ``torch.compile`` wrapper is looked through.
        loss: a name (``"cross_entropy"``, ...), a mapping with its options as in a spec, a loss of
            :mod:`hessdiag.losses`, one of torch's, or a function ``(outputs, targets)`` that returns unit losses,
            ``(sum, count)``, or a mean.
        data: a re-iterable of batches (a DataLoader, a list): ``(inputs, targets)`` or mappings.
        include: glob patterns over parameter names; those that require a gradient are measured.
        exclude: patterns that take away from them.
        checkpoint: where the weights came from, for the report.
        settings: what :func:`hessdiag.audit` measures unless it is told otherwise; of a spec, its ``audit:``.

    Attributes:
        n: the number of selected weights, the order of the Hessian.
        groups: the selected tensors in the order of the flat vector.
        loss_value: f(w) when the problem was made; :meth:`evaluate` gives it as the weights are now.
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
        loss: str | Mapping[str, Any] | Loss | Callable[[Any, Any], Any],
        data: Iterable[Any],
        *,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        checkpoint: CheckpointInfo | None = None,
        settings: AuditSpec | None = None,
    ) -> None:
        refuse_what_is_read_once(data)
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self.loss = as_loss(loss)
        self.checkpoint, self.settings = checkpoint, settings
        self.parameters = select_parameters(self.model, include, exclude)
        self.groups = tuple(Group(plain_name(name), p.numel()) for name, p in self.parameters.items())
        self.n = sum(group.size for group in self.groups)
        self.device, self.model_dtype = one_place(self.parameters)
        self.dtype = torch.float64 if self.model_dtype is torch.float64 else torch.float32
        refuse_bad_weights(self.model)
        refuse_shared_memory(self.parameters)
        self._places = places_of(self.model, self.parameters)
        self._data, self.include, self.exclude = data, tuple(include), tuple(exclude)
        self._cached: list[Batch] | None = None
        self._measuring = False
        self.meter = Meter()
        seen = survey(self)
        self.weight, self.examples, self.loss_value = seen.weight, seen.examples, seen.loss
        self.data_info, self._cached = seen.data_info, seen.batches
        self.meter.batches_per_pass = seen.data_info.batches
        self.meter.add("forward", 2 * seen.data_info.batches)

    # -- the data ------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The batches of the spec, in order, on the model's device and in its dtype."""
        if self._cached is not None:
            yield from self._cached
            return
        for batch in self.read():
            yield batch.on(self.device, self.model_dtype)

    def read(self) -> Iterator[Batch]:
        """The batches as the data give them; most callers want :meth:`batches`."""
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
                f"the data could not be read, at batch {index} or the next: {_in_one_line(error)}"
            ) from error

    # -- the loss ------------------------------------------------------------------------------------------

    def batch_totals(self, batch: Batch, weights: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """``(total, count)`` of one batch: the sum of its unit losses with its graph, and its denominator.

        Args:
            batch: one of :meth:`batches`.
            weights: other tensors in place of some parameters (for function transforms).
        """
        outputs = self.outputs(batch, weights)
        return self.loss(outputs, batch.targets, batch.rows)

    def outputs(self, batch: Batch, weights: dict[str, Tensor] | None = None) -> Any:
        """What the loss is given of one batch: the model's outputs, or their ``.logits``."""
        args, kwargs = self._call(batch)
        if weights is None:
            outputs = self.model(*args, **kwargs)
        else:
            placed = {place: weights[name] for name, places in self._places.items() for place in places}
            outputs = functional_call(self.model, placed, args, kwargs, tie_weights=False)
        return outputs if isinstance(self.loss, ModelLoss) else _logits(outputs)

    def with_loss(self, loss: Loss) -> Problem:
        """The same model and data with another loss."""
        other = copy.copy(self)
        other.loss = loss
        return other

    @functools.cached_property
    def compiled(self) -> Problem:
        """The same problem, its model through ``torch.compile``; :mod:`hessdiag.problem.compiled` lets it run."""
        model, other = self.model, copy.copy(self)
        # A function around the model: on a module torch.compile would leave a mark.
        other.model = cast(nn.Module, torch.compile(lambda *args, **kwargs: model(*args, **kwargs)))
        return other

    def _call(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = shallow_copy(batch.inputs)
        missing = isinstance(self.loss, ModelLoss) and batch.targets is not None and batch.key is None
        if isinstance(inputs, dict):
            return (), inputs | {"labels": batch.targets} if missing else inputs
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        return (*args, batch.targets) if missing else args, {}

    def evaluate(self) -> float:
        """f(w) at the present weights: one forward pass."""
        totals = []
        with self.measuring(), torch.no_grad():
            for batch in self.batches():
                totals.append(float(self.batch_totals(batch)[0]))
                self.meter.add("forward", 1)
        return math.fsum(totals) / self.weight

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
        # What old parametrisations (pruning, weight_norm) leave in a module has a graph, which cannot be copied;
        # it is computed anew before each use.
        made = {id(t): t.detach().clone() for m in self.model.modules() for t in vars(m).values() if _computed(t)}
        model = copy.deepcopy(self.model, made).double()
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


def _in_one_line(error: Exception) -> str:
    """What was raised; a DataLoader's worker sends its whole traceback as the words."""
    words = str(error).strip()
    if "Original Traceback" in words:
        return f"{words.splitlines()[-1].strip()} (in a DataLoader's worker)"
    return f"{type(error).__name__}: {words}"


def _computed(item: Any) -> bool:
    return isinstance(item, Tensor) and not item.is_leaf


def _logits(outputs: Any) -> Any:
    """An output with ``.logits`` stands for its logits."""
    if isinstance(outputs, dict) and "logits" in outputs:
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)
