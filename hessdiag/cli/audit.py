"""``hessdiag audit``."""

from __future__ import annotations

from hessdiag.cli.options import Request, measuring


@measuring
def audit(request: Request) -> None:
    """Measure loss, gradient, extreme eigenvalues, trace and noise gap: the whole report.

    What is measured, and how closely, stands under `audit:` in the spec.
    """
    from hessdiag.cli.measure import measure_sections

    measure_sections(request)
