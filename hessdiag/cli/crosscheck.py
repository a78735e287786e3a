"""``hessdiag crosscheck``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hessdiag.cli.options import Request, measuring

if TYPE_CHECKING:
    from hessdiag.results import Report


@measuring
def crosscheck(request: Request) -> None:
    """Measure the same quantities by independent implementations, and tell how far they are apart.

    References: pyhessian, and a dense float64 Hessian for up to 5,000 parameters.
    """
    from hessdiag.cli.measure import measure

    spec = request.load_spec()

    def work(*given: Any, **shared: Any) -> Report:
        from hessdiag.workflows.crosscheck import crosscheck as run

        return run(*given, **shared)

    measure(request, spec, spec.audit.only(("eigenvalues", "trace")), work)
