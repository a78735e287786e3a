"""``hessdiag trace``."""

from __future__ import annotations

from typing import Annotated

import typer

from hessdiag.cli.options import Request, measuring
from hessdiag.spec.names import TraceMethod


@measuring
def trace(
    request: Request,
    method: Annotated[
        TraceMethod | None,
        typer.Option(help="How it is estimated; auto takes the cheapest. (default: spec, auto)"),
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Interval's half-width, relative to the trace. (default: spec, 0.05)")
    ] = None,
    max_matvecs: Annotated[
        int | None,
        typer.Option(min=2, help="Passes over the data allowed: products and gradients. (default: spec, 2000)"),
    ] = None,
) -> None:
    """Measure the trace of the Hessian, whole and by parameter tensor."""
    from hessdiag.cli.measure import measure_sections

    request = request.overridden(
        audit__trace__method=method, audit__trace__rtol=rtol, audit__trace__max_matvecs=max_matvecs
    )
    measure_sections(request, ("trace",))
