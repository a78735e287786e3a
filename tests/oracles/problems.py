"""Small problems with their mean loss written a second time, by plain torch reductions over all of the data.

The second writing never meets a batch: it calls the model once on the whole data and takes torch's own mean.
Its dense Hessian is differentiated by ``torch.func.hessian``, or row by row where that cannot be done.
"""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessdiag import Problem

Run = Callable[..., Any]


@dataclass
class Case:
    """One problem, made afresh.

    Args:
        model: as its user gives it (in train mode, where that must not matter).
        loss: what is handed to Problem.
        data: all of it, in the form of a batch.
        sizes: the split into batches.
        mean: the whole-data mean loss from ``run`` (the model at given weights) and ``data``.
        selected: names of the measured parameters, where they are not simply all.
        explicit: the same parameters in a model that writes its operations out, for the reference.
        pack: makes a batch of the data's form from a slice (arrays, DataLoader lists, ...).
    """

    model: nn.Module
    loss: Any
    data: Any
    mean: Callable[[Run, Any], Tensor]
    sizes: Sequence[int] = (4, 4, 3)
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    selected: Sequence[str] | None = None
    explicit: nn.Module | None = None
    pack: Callable[[Any], Any] | None = None

    @property
    def examples(self) -> int:
        return len(_first(self.data))

    def batches(self, sizes: Sequence[int] | None = None, order: Tensor | None = None) -> list[Any]:
        where = torch.arange(self.examples) if order is None else order
        batches = [_take(self.data, part) for part in torch.split(where, list(sizes or self.sizes))]
        return batches if self.pack is None else [self.pack(batch) for batch in batches]

    def problem(self, sizes: Sequence[int] | None = None, order: Tensor | None = None, **changed: Any) -> Problem:
        options = {"include": self.include, "exclude": self.exclude} | changed
        return Problem(self.model, self.loss, self.batches(sizes, order), **options)

    def converted(self, dtype: torch.dtype) -> Case:
        """The same case with the model and the data rounded to ``dtype``."""
        case = copy.copy(self)
        case.model, case.data = copy.deepcopy(self.model).to(dtype), _to(self.data, dtype)
        return case


@dataclass(frozen=True)
class Oracle:
    """A named case.

    Attributes:
        smooth: no kinks, so that finite differences converge.
        forward_mode: forward-over-reverse can do it; otherwise it must refuse.
        bfloat16: torch has the model's operations in bfloat16; otherwise it must be refused.
        rows: differentiate the reference row by row: ``torch.func.hessian`` cannot, or errs.
    """

    name: str
    make: Callable[[], Case]
    smooth: bool = True
    forward_mode: bool = True
    bfloat16: bool = True
    rows: bool = False

    def case(self) -> Case:
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(self.name.encode()))
            case = self.make()
            case.model.double()
            return case


ORACLES: dict[str, Oracle] = {}


def oracle(
    *, smooth: bool = True, forward_mode: bool = True, bfloat16: bool = True, rows: bool = False
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register a factory under its function's name."""

    def register(make: Callable[[], Case]) -> Callable[[], Case]:
        name = make.__name__
        assert name not in ORACLES, name
        ORACLES[name] = Oracle(name, make, smooth, forward_mode, bfloat16, rows)
        return make

    return register


@dataclass(frozen=True)
class Reference:
    """What the second writing gives: f, its gradient (n,) and its Hessian (n, n), in float64."""

    loss: float
    gradient: Tensor
    hessian: Tensor


@functools.cache
def reference(name: str) -> Reference:
    oracle = ORACLES[name]
    return differentiate(oracle.case(), rows=oracle.rows)


def differentiate(case: Case, *, rows: bool = False) -> Reference:
    """f, gradient and dense Hessian of the second writing."""
    model = case.model.eval()
    if case.explicit is not None:
        case.explicit.double().load_state_dict(model.state_dict())
        model = case.explicit
    parameters = dict(model.named_parameters())
    names = list(case.selected or parameters)
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, before)
        if rows:
            return _row_by_row(case, model, [parameters[name] for name in names])
        return _by_transforms(case, model, {name: parameters[name] for name in names})


def _by_transforms(case: Case, model: nn.Module, selected: dict[str, nn.Parameter]) -> Reference:
    shapes = [p.shape for p in selected.values()]
    flat = torch.cat([p.detach().reshape(-1) for p in selected.values()])

    def f(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(selected, parts, shapes, strict=True)}
        return case.mean(lambda *args, **named: functional_call(model, weights, args, named), case.data)

    hessian = torch.func.hessian(f)(flat)
    return Reference(float(f(flat).detach()), torch.func.grad(f)(flat).detach(), hessian.detach())


def _row_by_row(case: Case, model: nn.Module, selected: list[nn.Parameter]) -> Reference:
    def rows(value: Tensor, *, create_graph: bool) -> Tensor:
        grads = torch.autograd.grad(
            value, selected, create_graph=create_graph, retain_graph=True, materialize_grads=True
        )
        return torch.cat([g.reshape(-1) for g in grads])

    f = case.mean(model, case.data)
    gradient = rows(f, create_graph=True)
    hessian = torch.stack([rows(entry, create_graph=False) for entry in gradient])
    return Reference(float(f.detach()), gradient.detach(), hessian)


def _first(item: Any) -> Tensor:
    if isinstance(item, Tensor):
        return item
    return _first(next(iter(item.values())) if isinstance(item, dict) else item[0])


def _take(item: Any, where: Tensor) -> Any:
    if isinstance(item, Tensor):
        return item[where]
    if isinstance(item, dict):
        return {name: _take(value, where) for name, value in item.items()}
    return tuple(_take(value, where) for value in item)


def _to(item: Any, dtype: torch.dtype) -> Any:
    if isinstance(item, Tensor):
        return item.to(dtype) if item.is_floating_point() else item
    if isinstance(item, dict):
        return {name: _to(value, dtype) for name, value in item.items()}
    return tuple(_to(value, dtype) for value in item)


from oracles import problems_architectures, problems_losses  # noqa: E402, F401
