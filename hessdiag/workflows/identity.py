"""What a run is known by: what it measures and with what. A later run of the same goes on from it."""

from __future__ import annotations

import platform
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.results import Report, Target
from hessdiag.spec.schema import AuditSpec

__all__ = ["blank_report", "same_run"]


def blank_report(command: str, H: HessianOperator, settings: AuditSpec, seed: int) -> Report:
    """A report of what is to be measured, with nothing measured yet."""
    problem = H.problem
    return Report(
        command=command,
        status="partial",
        target=Target(
            checkpoint=problem.checkpoint,
            parameters=problem.n,
            parameters_total=sum(p.numel() for p in problem.model.parameters()),
            dtype=str(problem.model_dtype).removeprefix("torch."),
            device=str(problem.device),
            engine=H.engine_info,
        ),
        data=problem.data_info,
        seed=seed,
        settings={
            "loss": _described(problem.loss),
            "parameters": {"include": list(problem.include), "exclude": list(problem.exclude)},
            "audit": settings.model_dump(mode="json", exclude_none=True),
        },
        environment={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "threads": str(torch.get_num_threads()),
        },
    )


def _described(loss: Any) -> dict[str, Any]:
    options = {f.name: getattr(loss, f.name) for f in fields(loss)} if is_dataclass(loss) else {}
    return {"name": type(loss).__name__, **{key: _shown(value) for key, value in options.items()}}


def _shown(value: Any) -> Any:
    """An option of a loss as the report has it; never with an address in it, which no two runs share."""
    if isinstance(value, torch.nn.Module):
        return repr(value)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return value if isinstance(value, (int, float, str, tuple, list, dict, type(None))) else type(value).__qualname__


def same_run(one: Report, other: Report) -> bool:
    """Whether both measure the same with the same settings; the loss and the gradient norm must agree bit for bit."""
    same = ("version", "command", "target", "data", "seed", "settings", "environment", "loss", "gradient_norm")
    was, new = one.to_dict(), other.to_dict()  # as documents: reading one back does not restore tuples
    return all(was.get(name) == new.get(name) for name in same)
