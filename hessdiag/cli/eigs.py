"""``hessdiag eigs``."""

from __future__ import annotations

from typing import Annotated

import typer

from hessdiag.cli.options import Request, measuring
from hessdiag.spec.names import EigenvalueMethod


@measuring
def eigs(
    request: Request,
    top: Annotated[int | None, typer.Option(min=1, help="How many from the largest down. (default: spec, 5)")] = None,
    bottom: Annotated[int | None, typer.Option(min=0, help="How many from the smallest up. (default: spec, 1)")] = None,
    method: Annotated[
        EigenvalueMethod | None, typer.Option(help="How they are found. (default: spec, lanczos)")
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(help="Residual, relative to the largest eigenvalue in magnitude. (default: spec, 1e-3)"),
    ] = None,
    max_matvecs: Annotated[
        int | None, typer.Option(min=1, help="Hessian-vector products allowed. (default: spec, 500)")
    ] = None,
) -> None:
    """Measure the extreme eigenvalues of the Hessian."""
    from hessdiag.cli.measure import measure_sections

    request = request.overridden(
        audit__eigenvalues__top=top,
        audit__eigenvalues__bottom=bottom,
        audit__eigenvalues__method=method,
        audit__eigenvalues__rtol=rtol,
        audit__eigenvalues__max_matvecs=max_matvecs,
    )
    measure_sections(request, ("eigenvalues",))
