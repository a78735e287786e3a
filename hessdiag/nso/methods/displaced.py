"""What all methods share: gradients at displaced weights, and a base optimizer that steps from where it was."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import LBFGS, Optimizer

from hessdiag.errors import UsageError
from hessdiag.nso.noise import Noise
from hessdiag.nso.statistics import RunningStatistics

__all__ = ["Closure", "DisplacedOptimizer", "refuse_below"]

Closure = Callable[[], Any]
"""Zeroes the gradients, runs forward and backward, returns the loss; with several micro-batches, all of them."""


class DisplacedOptimizer(Optimizer):
    """A torch optimizer whose direction comes from gradients at displaced weights.

    :meth:`step` leaves that direction in the parameters' ``.grad`` and lets the base optimizer step with it, from the
    weights as they were: they are put back from a copy, never by subtraction, also when the closure raises. So weight
    decay acts at the weights themselves, and momentum and schedules work as with the base optimizer alone, whose state
    and parameter groups are this one's. Every pass of a step has the same displacement for all of the closure's
    micro-batches.

    Args:
        params: parameters, named parameters or groups, as of any torch optimizer; those without requires_grad are
            left alone.
        base: class of the optimizer that steps, such as ``torch.optim.SGD``.
        own: the method's own settings, which groups can override.
        model: whose BatchNorm statistics passes at displaced weights must not touch; None: there are none.
        clip_norm: clip the direction to this norm; a closure would clip each pass for itself.
        scaler: of a closure that scales its loss for float16. It is asked to step and updated once a step, and a step
            of which any pass is not finite is left out.
        base_options: of the base optimizer.

    Attributes:
        evaluations: of the closure so far, so many gradients.

    Raises:
        UsageError: a base optimizer that takes a closure itself, or settings out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer],
        own: dict[str, Any],
        *,
        model: nn.Module | None = None,
        clip_norm: float | None = None,
        scaler: GradScaler | None = None,
        **base_options: Any,
    ) -> None:
        if issubclass(base, (LBFGS, DisplacedOptimizer)):
            raise UsageError(f"base: found {base.__name__}, expected an optimizer that steps once, from .grad alone")
        super().__init__(params, own)
        self.base = base(self.param_groups, **base_options)
        self.defaults |= {**self.base.defaults, **own}
        self._share()
        self._statistics = RunningStatistics(model)
        self._clip_norm, self._scaler = clip_norm, scaler
        self._held: list[Tensor] | None = None
        self._copy: list[Tensor] = []
        self._noise: Noise | None = None
        self._moved = False
        self.steps, self.evaluations = 0, 0

    # -- a step --------------------------------------------------------------------------------------------

    def step(self, closure: Closure | None = None) -> Any:
        """One step; the closure is run as often as the method says.

        Returns:
            The loss: the mean over passes at random displacements, or that of the first pass, by method.
        """
        if closure is None:
            raise UsageError(
                "step: found no closure, expected one that zeroes gradients, runs backward, returns the loss"
            )
        with torch.no_grad():
            with self._weights_kept():
                loss = self._direct(closure)
            self._step_base()
        self.steps += 1
        return loss.detach() if isinstance(loss, Tensor) else loss

    @property
    @abstractmethod
    def gradients_per_step(self) -> int:
        """Runs of the closure in a step, at most."""

    @abstractmethod
    def _direct(self, closure: Closure) -> Any:
        """Leave the direction in ``.grad``; return the loss. The weights are put back afterwards."""

    def _evaluate(self, closure: Closure, *, clean: bool = False, remember: bool = False) -> Any:
        """The loss and ``.grad`` at the weights as they are now; ``clean``: they are not displaced."""
        self.evaluations += 1
        with torch.enable_grad():
            if clean:
                return closure()
            with self._statistics.kept(remember=remember):
                return closure()

    @contextmanager
    def _weights_kept(self) -> Iterator[None]:
        parameters = self.parameters
        if not all(map(_alike, self._copy, parameters)) or len(self._copy) != len(parameters):
            self._copy = [torch.empty_like(p, memory_format=torch.preserve_format) for p in parameters]
        torch._foreach_copy_(self._copy, parameters)
        self._held = parameters
        try:
            yield
        finally:
            self._put_back()
            self._held = None

    def _put_back(self) -> None:
        if self._moved:
            torch._foreach_copy_(self.parameters, self._copy)
            self._moved = False

    def _displace(self, by: Sequence[Tensor], scale: float = 1.0) -> None:
        """To w + scale * by, from wherever the weights are."""
        self._moved = True
        for parameter, origin, step in zip(self.parameters, self._copy, by, strict=True):
            torch.add(origin, step, alpha=scale, out=parameter.data)

    def _noise_of(self, seed: int, distribution: str = "gaussian") -> Noise:
        """Noise shaped like the parameters; its memory is kept from step to step."""
        if self._noise is None or not self._noise.fits(self.parameters):
            self._noise = Noise(self.parameters, seed=seed, distribution=distribution)
        return self._noise

    def _step_base(self) -> None:
        if self._scaler is None:
            self._clip()
            self.base.step()
            return
        if self._clip_norm is not None:
            self._scaler.unscale_(self.base)
            self._clip()
        self._scaler.step(self.base)
        self._scaler.update()

    def _clip(self) -> None:
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)

    # -- parameters ----------------------------------------------------------------------------------------

    @property
    def parameters(self) -> list[Tensor]:
        """Those that are trained."""
        if self._held is not None:
            return self._held
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def setting(self, name: str) -> list[Any]:
        """A setting for each of :attr:`parameters`, from its group."""
        return [group[name] for group in self.param_groups for p in group["params"] if p.requires_grad]

    @property
    def gradients(self) -> list[Tensor]:
        """``.grad`` of :attr:`parameters`, zeros where there is none."""
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]

    @property
    def loss_scale(self) -> float:
        """By which the closure's gradients are too large."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    # -- torch's bookkeeping -------------------------------------------------------------------------------

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's, and the number of steps, by which noise is drawn."""
        return {**self.base.state_dict(), "displaced": {"steps": self.steps, "evaluations": self.evaluations}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""
        rest = dict(state_dict)
        own = rest.pop("displaced")
        self.base.load_state_dict(rest)
        self._share()
        self.steps, self.evaluations = own["steps"], own["evaluations"]


def _alike(copy: Tensor, parameter: Tensor) -> bool:
    return copy.shape == parameter.shape and copy.dtype is parameter.dtype and copy.device == parameter.device


def refuse_below(least: float, **settings: float) -> None:
    """Refuse a setting below ``least``, or one that is no number."""
    for name, found in settings.items():
        if not found >= least:
            raise UsageError(f"{name}: found {found}, expected a number of at least {least}")
