"""``hessdiag gap``."""

from __future__ import annotations

from typing import Annotated

import typer

from hessdiag.cli.options import Request, measuring
from hessdiag.spec.names import Distribution, GapEstimator


@measuring
def gap(
    request: Request,
    sigma: Annotated[
        str | None,
        typer.Option(
            metavar="START:STOP:COUNT|LIST",
            help="Noise levels in units of the weights, as 0.02:0.03:11 or 0.02,0.03. "
            "(default: spec, 0.008,0.01,0.012)",
        ),
    ] = None,
    draws: Annotated[int | None, typer.Option(min=2, help="Noise draws. (default: spec, 100)")] = None,
    estimator: Annotated[
        GapEstimator | None, typer.Option(help="Noise on both sides or on one. (default: spec, two-sided)")
    ] = None,
    distribution: Annotated[Distribution | None, typer.Option(help="Of the noise. (default: spec, gaussian)")] = None,
) -> None:
    """Measure the loss gained by weight noise, F(W) - f(W), against sigma^2/2 Tr[H]."""
    from hessdiag.cli.measure import measure_sections

    request = request.overridden(
        audit__gap__sigma=sigma,
        audit__gap__draws=draws,
        audit__gap__estimator=estimator,
        audit__gap__distribution=distribution,
    )
    measure_sections(request, ("trace", "gap"))
