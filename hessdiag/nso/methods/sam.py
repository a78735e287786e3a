"""Sharpness-aware minimization and its scale-invariant kin: the gradient at the worst weights nearby."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from hessdiag.errors import UsageError
from hessdiag.nso.methods.displaced import Closure, DisplacedOptimizer, refuse_below
from hessdiag.nso.methods.vectors import of_length

__all__ = ["ASAM", "SAM"]

_FLOOR = 0.01  # of ASAM's scales, so that weights of 0 move too


class SAM(DisplacedOptimizer):
    """Sharpness-aware minimization: w - lr g(w + e), e = rho g / ||g||, g the gradient of one minibatch at w.

    Args:
        params: as of any torch optimizer; groups may have a ``rho`` of their own.
        base: class of the optimizer that steps.
        rho: length of the ascent; .01 to .05 in the papers.
        model: whose BatchNorm statistics are kept from the pass at w + e; the one at w records them.
        clip_norm, scaler, base_options: see :class:`DisplacedOptimizer`.

    Cost: 2 gradients a step. The loss that a step returns is the one at w.

    Raises:
        UsageError: rho below 0.

    Source: arXiv 2010.01412.
    """

    gradients_per_step = 2

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = torch.optim.SGD,
        *,
        rho: float,
        model: nn.Module | None = None,
        clip_norm: float | None = None,
        scaler: GradScaler | None = None,
        **base_options: Any,
    ) -> None:
        refuse_below(0, rho=rho)
        super().__init__(params, base, {"rho": rho}, model=model, clip_norm=clip_norm, scaler=scaler, **base_options)

    def _direct(self, closure: Closure) -> Any:
        loss = self._evaluate(closure, clean=True)
        ascent = self._ascent(self.gradients)
        if ascent is not None:
            self._displace(ascent)
            self._evaluate(closure)
        return loss

    def _ascent(self, gradients: Sequence[Tensor]) -> list[Tensor] | None:
        """The ascent e = rho g / ||g||; None where that is nothing, and the gradient stands."""
        return of_length(gradients, self.setting("rho"))


class ASAM(SAM):
    """Adaptive SAM: e = rho T^2 g / ||T g||, T = |w| + .01 for tensors whose name holds ``weight``, 1 for the others.

    As :class:`SAM` with an ascent that does not depend on the scale of a layer; rho .5 to 2 in the paper. The names
    come from ``named_parameters()`` in place of the parameters, or from ``model``.

    Raises:
        UsageError: rho below 0, or no names.

    Source: arXiv 2102.11600.
    """

    def __init__(self, params: Iterable[Any], *args: Any, model: nn.Module | None = None, **options: Any) -> None:
        self._names = {p: name for name, p in model.named_parameters()} if model is not None else {}
        super().__init__(params, *args, model=model, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        names = group.get("param_names") or [self._names.get(p, "") for p in group["params"]]
        if not all(names):
            raise UsageError("ASAM: found parameters without names, expected model.named_parameters(), or model=")
        group["scaled"] = ["weight" in name for name in names]

    def _ascent(self, gradients: Sequence[Tensor]) -> list[Tensor] | None:
        scales = [p.abs() + _FLOOR if scaled else torch.ones_like(p) for p, scaled in self._with_scales]
        scaled = [scale * g for scale, g in zip(scales, gradients, strict=True)]
        ascent = super()._ascent(scaled)
        return ascent and [scale * e for scale, e in zip(scales, ascent, strict=True)]

    @property
    def _with_scales(self) -> list[tuple[Tensor, bool]]:
        groups = self.param_groups
        pairs = [pair for group in groups for pair in zip(group["params"], group["scaled"], strict=True)]
        return [(p, scaled) for p, scaled in pairs if p.requires_grad]
