"""``hessdiag crosscheck``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hessdiag.cli.options import Request, measuring

if TYPE_CHECKING:
    from hessdiag.problem import Problem
    from hessdiag.results import Report
    from hessdiag.workflows.audit import Watch


@measuring
def crosscheck(request: Request) -> None:
    """Measure the same quantities by independent implementations, and tell how far they are apart.

    References: pyhessian, and a dense float64 Hessian for up to 5,000 parameters.
    """
    from hessdiag.cli.measure import measure

    spec = request.load_spec()
    plan = spec.audit.only(("eigenvalues", "trace"))

    def work(problem: Problem, watch: Watch, previous: Report | None) -> Report:
        from hessdiag.workflows.crosscheck import crosscheck as run

        return run(problem, plan, seed=request.common.seed, previous=previous, watch=watch)

    measure(request, spec, plan, work)
