"""From a spec to a problem."""

from hessdiag.loading.problems import load, load_problem

__all__ = ["load", "load_problem"]
