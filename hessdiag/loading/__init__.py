"""From a spec to a problem."""

from hessdiag.loading.checkpoints import Reading
from hessdiag.loading.problems import load, load_problem

__all__ = ["Reading", "load", "load_problem"]
