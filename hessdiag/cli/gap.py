"""``hessdiag gap``."""

from __future__ import annotations

from typing import Annotated

import typer

from hessdiag.cli.options import Request, measuring
from hessdiag.spec.names import Distribution, GapEstimator, GapNoise


@measuring
def gap(
    request: Request,
    sigma: Annotated[
        str | None,
        typer.Option(
            metavar="START:STOP:COUNT|LIST|auto",
            help="Noise levels in units of the weights, as 0.02:0.03:11 or 0.02,0.03; auto: those up to the largest at "
            "which the approximation holds within 3 %. (default: spec, 0.008,0.01,0.012)",
        ),
    ] = None,
    draws: Annotated[int | None, typer.Option(min=2, help="The most noise draws. (default: spec, 100)")] = None,
    rtol: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop when the draws know every relative deviation to this; 0: take all. (default: spec, 0.01)",
        ),
    ] = None,
    noise: Annotated[
        GapNoise | None,
        typer.Option(help="Fresh for each batch, or one for the whole data. (default: spec, per-batch)"),
    ] = None,
    estimator: Annotated[
        GapEstimator | None, typer.Option(help="Noise on both sides or on one. (default: spec, two-sided)")
    ] = None,
    distribution: Annotated[Distribution | None, typer.Option(help="Of the noise. (default: spec, gaussian)")] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Take the model through torch.compile for the forward passes. (default: spec, no)",
        ),
    ] = None,
) -> None:
    """Measure the loss gained by weight noise, F(W) - f(W), against sigma^2/2 Tr[H]."""
    from hessdiag.cli.measure import measure_sections

    request = request.overridden(
        audit__gap__sigma=sigma,
        audit__gap__draws=draws,
        audit__gap__rtol=rtol,
        audit__gap__noise=noise,
        audit__gap__estimator=estimator,
        audit__gap__distribution=distribution,
        audit__gap__compile=compiled,
    )
    measure_sections(request, ("trace", "gap"))
