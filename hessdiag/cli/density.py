"""``hessdiag density``."""

from __future__ import annotations

from typing import Annotated

import typer

from hessdiag.cli.options import Request, measuring


@measuring
def density(
    request: Request,
    steps: Annotated[int | None, typer.Option(min=2, help="Lanczos steps of a probe. (default: spec, 80)")] = None,
    probes: Annotated[int | None, typer.Option(min=1, help="Random start vectors. (default: spec, 4)")] = None,
) -> None:
    """Measure the spectral density of the Hessian by stochastic Lanczos quadrature."""
    from hessdiag.cli.measure import measure_sections

    request = request.overridden(audit__density__steps=steps, audit__density__probes=probes)
    measure_sections(request, ("density",))
