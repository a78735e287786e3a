"""``hessdiag audit``."""

from __future__ import annotations

from hessdiag.cli.measure import measure_sections
from hessdiag.cli.options import Request, measuring


@measuring
def audit(request: Request) -> None:
    """Measure loss, gradient, extreme eigenvalues, trace and noise gap: the whole report.

    What is measured, and how closely, stands under `audit:` in the spec.
    """
    measure_sections(request)
