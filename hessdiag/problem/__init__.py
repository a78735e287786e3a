"""The problem: a model, its selected parameters, data and a loss, measured without being changed."""

from hessdiag.problem.batches import Batch
from hessdiag.problem.problem import Group, Problem

__all__ = ["Batch", "Group", "Problem"]
