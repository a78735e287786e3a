"""How one batch is differentiated twice, and which way to take.

An engine linearises the gradient of one batch's total at the present weights: ``linearize(problem, batch)``
returns a function v -> H_b v that may be called for many vectors and keeps what they share.

| engine | cost of a product over a gradient | needs |
| --- | --- | --- |
| reverse-over-reverse | about 2, the first-order graph built once | a second derivative of every operation |
| forward-over-reverse | about 3, less memory | forward-mode rules and no in-place state |
| finite-differences | 2, an error of 1e-3 to 1e-4 in float32 | a smooth loss; useless for rectifiers |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from hessdiag.curvature.graph import custom_functions, cut_short
from hessdiag.curvature.operations import ClosedForms
from hessdiag.errors import HessdiagError, MeasurementError, UsageError
from hessdiag.memory import out_of_memory
from hessdiag.problem import Batch, Problem

__all__ = ["ENGINES", "Engine", "FiniteDifferences", "ForwardOverReverse", "ReverseOverReverse", "choose_engine"]

Rows = Sequence[Tensor | None]
"""H_b v as one tensor for each selected parameter; None stands for zeros."""

Product = Callable[[Tensor], Rows]
"""v (n,), in the problem's vector dtype -> H_b v."""


class Engine(Protocol):
    """One way to multiply by the Hessian of a batch's total."""

    name: str
    relative_error: float | None

    def linearize(self, problem: Problem, batch: Batch) -> Product:
        """The function v -> H_b v at the present weights."""
        ...


class ReverseOverReverse:
    """H_b v = d/dw <d total/dw, v>: the exact product by two backward passes (Pearlmutter 1994).

    The graph of the gradient is built once and serves every vector.

    Args:
        closed_forms: with the operations of :mod:`hessdiag.curvature.operations` in place of torch's: the same
            function, with a cheaper second derivative.
    """

    name = "reverse-over-reverse"
    relative_error: float | None = None

    def __init__(self, *, closed_forms: bool = True) -> None:
        self._operations: Callable[[], AbstractContextManager[Any]] = ClosedForms if closed_forms else nullcontext

    def linearize(self, problem: Problem, batch: Batch) -> Product:
        parameters = list(problem.parameters.values())
        with self._operations():
            total, _ = problem.batch_totals(batch)
            if not total.requires_grad:
                return lambda v: [None] * len(parameters)
            gradients = torch.autograd.grad(total, parameters, create_graph=True, allow_unused=True)
        if cut_short(gradients):
            raise RuntimeError(f"an operation marked once_differentiable ({', '.join(custom_functions(total))})")
        # A gradient without graph is constant in w: its rows of the Hessian are zero.
        live = [i for i, g in enumerate(gradients) if g is not None and g.requires_grad]
        outputs = [gradients[i] for i in live]

        def product(v: Tensor) -> Rows:
            if not outputs:
                return [None] * len(parameters)
            parts = problem.unflatten(v)
            with self._operations():  # a checkpointed part of the model is computed anew here
                return torch.autograd.grad(
                    outputs,
                    parameters,
                    grad_outputs=[parts[i] for i in live],
                    retain_graph=True,
                    allow_unused=True,
                )

        return product


class ForwardOverReverse:
    """H_b v = the directional derivative of the gradient, by forward-mode differentiation of the backward pass."""

    name = "forward-over-reverse"
    relative_error: float | None = None

    def linearize(self, problem: Problem, batch: Batch) -> Product:
        names = list(problem.parameters)
        weights = {name: p.detach() for name, p in problem.parameters.items()}

        def total(at: dict[str, Tensor]) -> Tensor:
            return problem.batch_totals(batch, at)[0]

        gradient = torch.func.grad(total)

        def product(v: Tensor) -> Rows:
            tangent = dict(zip(names, problem.unflatten(v), strict=True))
            rows = torch.func.jvp(gradient, (weights,), (tangent,))[1]
            return [rows[name].detach() for name in names]

        return product

    def same_gradient(self, problem: Problem, batch: Batch) -> bool:
        """Whether the model sees replaced weights everywhere (a weight stashed in a list would be missed)."""
        weights = {name: p.detach() for name, p in problem.parameters.items()}
        rows = torch.func.grad(lambda at: problem.batch_totals(batch, at)[0])(weights)
        replaced = problem.flatten([rows[name].detach() for name in weights])
        direct = problem.batch_gradient(batch)
        return bool(torch.linalg.vector_norm(replaced - direct) <= 1e-3 * torch.linalg.vector_norm(direct))


class FiniteDifferences:
    """H_b v ~ ||v|| (g(w + s v/||v||) - g(w - s v/||v||)) / (2 s), s = eps^(1/3) (1 + ||w||).

    For operations that have a gradient but no second derivative. The step is scaled by ||v||, so that the
    answer is linear in the length of v. On rectifier networks it steps over kinks and is useless.
    """

    name = "finite-differences"

    def __init__(self, step_scale: float = 1.0) -> None:
        self.relative_error: float | None = None
        self.step_scale = step_scale

    def linearize(self, problem: Problem, batch: Batch) -> Product:
        epsilon = torch.finfo(problem.model_dtype).eps
        norm = math.hypot(*(float(torch.linalg.vector_norm(p.detach().double())) for p in problem.parameters.values()))
        step = self.step_scale * math.cbrt(epsilon) * (1 + norm)

        def product(v: Tensor) -> Rows:
            length = float(torch.linalg.vector_norm(v.double()))
            if length == 0:
                return [None] * len(problem.groups)
            direction = problem.unflatten(v / length)
            with problem.displacing() as displace:
                displace(direction, step)
                ahead = problem.batch_gradient(batch)
                displace(direction, -step)
                behind = problem.batch_gradient(batch)
            whole = (ahead - behind) * (length / (2 * step))
            return torch.split(whole, [group.size for group in problem.groups])

        return product

    def estimate(self, problem: Problem, batch: Batch, v: Tensor) -> tuple[Tensor, float]:
        """D(s), and ||D(s) - D(s/2)|| / ||D(s/2)||: a product and its relative error (kept as ``relative_error``)."""
        whole = problem.flatten(self.linearize(problem, batch)(v))
        half = problem.flatten(FiniteDifferences(self.step_scale / 2).linearize(problem, batch)(v))
        size = float(torch.linalg.vector_norm(half))
        difference = float(torch.linalg.vector_norm(whole - half))
        self.relative_error = difference / size if size > 0 else (0.0 if difference == 0 else float("inf"))
        return whole, self.relative_error


ENGINES: dict[str, Callable[[], Engine]] = {
    ReverseOverReverse.name: ReverseOverReverse,
    ForwardOverReverse.name: ForwardOverReverse,
    FiniteDifferences.name: FiniteDifferences,
}

# What is tried of an engine: where a closed form does not go through, torch's own operations may.
_TRIED: dict[str, Sequence[Callable[[], Engine]]] = {
    ReverseOverReverse.name: (ReverseOverReverse, functools.partial(ReverseOverReverse, closed_forms=False)),
}

_WORST_ERROR = 0.1  # of finite differences; above, the number would be worth nothing


def choose_engine(problem: Problem, name: str = "auto") -> Engine:
    """Pick an engine by trying on one batch: by what the model's operations can do, never by a stopwatch.

    The batch is the first whose loss depends on the weights. A candidate is taken when its products exist,
    are finite and symmetric (u.Hv = v.Hu): an operation with a wrong second derivative shows as an asymmetry.
    Where a user's ``torch.autograd.Function`` takes part, they must agree with finite differences too.

    Args:
        problem: what to differentiate.
        name: ``auto`` tries the engines from exact to approximate; another name tries that one alone.

    Raises:
        UsageError: no engine of that name.
        MeasurementError: none works; says why for each.
    """
    if name != "auto" and name not in ENGINES:
        raise UsageError(f"engine: found {name!r}, expected auto, {', '.join(ENGINES)}")
    refusals = []
    with problem.measuring():
        batch = problem.differentiable_batch()
        for candidate in ENGINES if name == "auto" else [name]:
            for make in _TRIED.get(candidate, [ENGINES[candidate]]):
                engine = make()
                why = _refusal(engine, problem, batch)
                if why is None:
                    return engine
            refusals.append(f"{candidate}: {why}")
    raise MeasurementError(
        "the loss has no usable second derivative:\n  "
        + "\n  ".join(refusals)
        + "\nreplace the operation that is named by a twice differentiable one (for attention: an eager or math "
        "implementation)"
    )


def _refusal(engine: Engine, problem: Problem, batch: Batch) -> str | None:
    """Why this engine cannot be used, or None."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, problem.n, generator=generator, device="cpu", dtype=torch.float32)
    u, v = (draw().to(problem.device, problem.dtype) for _ in range(2))
    try:
        if isinstance(engine, ForwardOverReverse) and not engine.same_gradient(problem, batch):
            return (
                "the gradient through torch.func is not the model's own: the model keeps weights where they cannot be "
                "replaced, or an operation has no rule there"
            )
        product = engine.linearize(problem, batch)
        hu = problem.flatten(product(u))
        if isinstance(engine, FiniteDifferences):
            problem.meter.add("hvp", 3)
            hv, error = engine.estimate(problem, batch, v)
            if not error <= _WORST_ERROR:
                return f"its error would be {error:.0%} (the loss is not smooth at the step's scale)"
        else:
            problem.meter.add("hvp", 2)
            hv = problem.flatten(product(v))
        why = _asymmetry(u, v, hu, hv, problem.model_dtype, engine.relative_error or 0.0)
        if why is None and not isinstance(engine, FiniteDifferences):
            why = _disagreement(problem, batch, v, hv)
        return why
    except HessdiagError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        return str(error).strip().splitlines()[0]


def _disagreement(problem: Problem, batch: Batch, v: Tensor, hv: Tensor) -> str | None:
    """How the product differs from finite differences, where a user's autograd.Function is in the graph.

    Its backward may keep values without their graph, so that a part of H is missing, and symmetrically so.
    On a rectifier network finite differences cannot tell.
    """
    names = custom_functions(problem.batch_totals(batch)[0])
    if not names:
        return None
    judge = FiniteDifferences()
    problem.meter.add("hvp", 2)
    expected, error = judge.estimate(problem, batch, v)
    size, difference = (float(torch.linalg.vector_norm(x.double())) for x in (expected, hv - expected))
    if error > _WORST_ERROR or difference <= max(1e-3, 5 * error) * size:
        return None
    return (
        f"its products differ from finite differences by {difference / size if size else math.inf:.2g}, which are "
        f"right to {error:.1g}: the backward of {', '.join(names)} may hide what it depends on"
    )


def _asymmetry(u: Tensor, v: Tensor, hu: Tensor, hv: Tensor, dtype: torch.dtype, error: float) -> str | None:
    if not bool(hu.isfinite().all() and hv.isfinite().all()):
        return "its products are not finite"
    tolerance = max(0.1 if dtype is torch.bfloat16 else 1e-3, 5 * error)
    left, right = float(u.double() @ hv.double()), float(v.double() @ hu.double())
    scale = float(torch.linalg.vector_norm(hu.double()) + torch.linalg.vector_norm(hv.double()))
    if abs(left - right) <= tolerance * scale:
        return None
    return (
        f"its products are not symmetric (u.Hv = {left:.6g}, v.Hu = {right:.6g}): "
        "some operation has a wrong second derivative"
    )
