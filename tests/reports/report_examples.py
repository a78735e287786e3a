"""Reports as the commands make them, for the golden files."""

import dataclasses
import math
import random

from hessdiag.results import (
    Caution,
    CheckpointInfo,
    Cost,
    CrosscheckResult,
    CrosscheckRow,
    DataInfo,
    DensityResult,
    Eigenpair,
    EigenvalueBounds,
    EigenvaluesResult,
    EngineInfo,
    Estimate,
    GapFit,
    GapResult,
    GapRow,
    GroupTrace,
    Report,
    SigmaSearch,
    Target,
    TracePart,
    TraceResult,
)

TARGET = Target(
    CheckpointInfo("fixtures/mlp.safetensors", "safetensors", "9f" * 32),
    8970,
    8970,
    "float32",
    "cpu",
    EngineInfo("reverse-over-reverse"),
)
DATA = DataInfo(1437, 1437.0, 6, "c0ffee")

EIGENVALUES = EigenvaluesResult(
    method="lanczos",
    matvecs=30,
    converged=True,
    rtol=1e-3,
    largest=tuple(
        Eigenpair(value, residual)
        for value, residual in [
            (12.3041832, 2.1e-4),
            (9.8712345, 3.4e-4),
            (7.01234567, 1.2e-3),
            (3.4400012, 4.4e-3),
            (0.98123456, 8.7e-3),
        ]
    ),
    smallest=(Eigenpair(-0.2123456, 3.2e-4),),
    seed=0,
    cost=Cost(hvp=36, seconds=1.2),
)

TRACE = TraceResult(
    value=48.3123,
    stderr=0.41,
    interval=(47.471, 49.152),
    confidence=0.95,
    method="deflated",
    probes=20,
    matvecs=40,
    converged=True,
    rtol=0.05,
    groups=(
        GroupTrace("fc1.weight", 8192, 31.0123, 0.31),
        GroupTrace("fc1.bias", 128, 2.3412, 0.052),
        GroupTrace("fc2.weight", 640, 14.71, 0.22),
        GroupTrace("fc2.bias", 10, 0.2488, 0.0043),
    ),
    seed=0,
    cost=Cost(hvp=40, seconds=1.9),
)


def _gap_row(sigma: float, off: float) -> GapRow:
    predicted = sigma**2 / 2 * 48.3123
    return GapRow(
        sigma=sigma,
        gap=predicted * (1 + off),
        std=predicted * 0.094,
        stderr=predicted * 0.0094,
        predicted=predicted,
        predicted_stderr=sigma**2 / 2 * 0.41,
        relative_deviation=off,
        relative_deviation_stderr=0.0127,
    )


_OFF = [0.011, 0.024, -0.003, 0.031, 0.042, 0.017, 0.058, 0.049, 0.081, 0.093, 0.124]
GAP = GapResult(
    distribution="gaussian",
    estimator="two-sided",
    noise="shared",
    draws=100,
    rss=sum(off**2 for off in _OFF) / len(_OFF),
    rows=tuple(_gap_row(round(0.02 + 0.001 * i, 6), off) for i, off in enumerate(_OFF)),
    seed=0,
    cost=Cost(forward=2200, seconds=5.1),
    fit=GapFit(Estimate(24.15615, 0.205), Estimate(1.312, 0.114), Estimate(1.71, 0.093)),
)

FULL = Report(
    command="audit",
    status="complete",
    target=TARGET,
    data=DATA,
    seed=0,
    loss=0.0123456789,
    gradient_norm=0.00112345,
    eigenvalues=EIGENVALUES,
    trace=TRACE,
    gap=GAP,
    cost=Cost(forward=2201, gradient=1, hvp=76, seconds=8.4),
    settings={"trace": {"rtol": 0.05, "method": "auto"}, "eigenvalues": {"top": 5}},
    environment={"python": "3.12.4", "torch": "2.10.0", "platform": "Linux"},
)

PARTIAL = dataclasses.replace(
    FULL,
    status="partial",
    trace=None,
    gap=None,
    cost=Cost(forward=1, gradient=1, hvp=52.5, seconds=131.0),
    warnings=(Caution("products are by finite-differences, with an error of about 3e-04"),),
)

NOT_CONVERGED = dataclasses.replace(
    FULL,
    target=dataclasses.replace(
        TARGET,
        checkpoint=None,
        parameters=11_181_642,
        parameters_total=11_689_512,
        device="cuda:0",
        engine=EngineInfo("finite differences", 3.2e-4),
    ),
    data=DataInfo(50_000, 6_350_112.0, 196, "c0ffee"),
    eigenvalues=dataclasses.replace(
        EIGENVALUES,
        converged=False,
        largest=(*EIGENVALUES.largest[:4], Eigenpair(0.98123456, 0.062)),
    ),
    trace=dataclasses.replace(
        TRACE, value=1.71e-5, stderr=1.3e-5, interval=(-8.4e-6, 4.26e-5), converged=False, probes=1, groups=()
    ),
    gap=dataclasses.replace(
        GAP,
        noise="per-batch",
        rss=None,
        rows=(
            dataclasses.replace(GAP.rows[0], std=None, relative_deviation=None, relative_deviation_stderr=None),
            dataclasses.replace(GAP.rows[1], std=None),
        ),
        fit=None,
        search=SigmaSearch(0.03, None, (4.59e-4, 0.47), True),
    ),
    warnings=(
        Caution(
            "finite differences: products are exact to about 3e-4 of their length only, "
            "which is more than eigenvalues.rtol asks for"
        ),
        Caution(
            "not converged: the worst residual is 0.005 of the largest |eigenvalue|, asked for 0.001; "
            "raise eigenvalues.max_matvecs or eigenvalues.rtol",
            "eigenvalues",
        ),
        Caution(
            "not converged: the interval reaches 149.1 % to each side, asked for 5.0 %; the time was up (max_time), "
            "raise it or trace.rtol",
            "trace",
        ),
    ),
)


def _many_groups() -> tuple[GroupTrace, ...]:
    generator = random.Random(4)
    names = ["transformer.wte.weight", "transformer.wpe.weight"]
    for layer in range(9):
        names += [
            f"transformer.h.{layer}.{part}.weight" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        ]
    names += ["transformer.ln_f.weight", "wrapped." * 16 + "head.linear_projection"]
    sizes = [38_597_376, 786_432, *[1_769_472, 589_824, 2_359_296, 2_359_296] * 9, 768, 3_840]
    values = [generator.gauss(20, 60) * generator.random() ** 2 for _ in names]
    values[-1] = 88.8
    return tuple(
        GroupTrace(name, size, value, 0.3 + abs(value) * 0.03)
        for name, size, value in zip(names, sizes, values, strict=True)
    )


SPLIT = dataclasses.replace(
    FULL,
    eigenvalues=dataclasses.replace(EIGENVALUES, bounds=EigenvalueBounds(-0.2134567, 12.313579, 0.99), restarts=2),
    trace=dataclasses.replace(
        TRACE,
        method="gauss-newton",
        probes=8,
        matvecs=8,
        reason="the loss is convex in the outputs",
        gauss_newton=TracePart(47.913, 0.31, 9),
        residual=TracePart(0.4, 0.27, 8),
    ),
    gap=None,
)

MANY_GROUPS = dataclasses.replace(
    FULL,
    command="trace",
    target=dataclasses.replace(
        TARGET,
        checkpoint=CheckpointInfo(
            "[red]runs/2024-11-03 gpt2-small/checkpoint-12000/model.safetensors", "safetensors", "9f" * 32
        ),
        parameters=124_439_808,
        parameters_total=124_439_808,
        device="cuda:0",
        engine=EngineInfo("forward-over-reverse"),
    ),
    eigenvalues=None,
    gap=None,
    trace=dataclasses.replace(
        TRACE,
        value=sum(group.value for group in _many_groups()),
        stderr=4.2,
        interval=(
            sum(group.value for group in _many_groups()) - 8.3,
            sum(group.value for group in _many_groups()) + 8.3,
        ),
        groups=_many_groups(),
        method="hutch++",
        matvecs=1200,
        probes=400,
    ),
    cost=Cost(forward=1, gradient=1, hvp=1200, seconds=4021.0),
)


def _density() -> DensityResult:
    nodes = (-0.21, -0.02, 0.0, 0.03, 0.4, 1.0, 3.44, 7.0123, 9.87, 12.304)
    weights = (2e-4, 0.06, 0.8, 0.13, 6e-3, 1.1e-4, *[1.114827e-4] * 4)
    bandwidth = 0.09
    low, high, points = -0.7, 12.8, 1024
    grid = tuple(low + (high - low) * i / (points - 1) for i in range(points))
    density = tuple(
        sum(
            w * math.exp(-(((x - node) / bandwidth) ** 2) / 2) / (bandwidth * math.sqrt(2 * math.pi))
            for node, w in zip(nodes, weights, strict=True)
        )
        for x in grid
    )
    return DensityResult(grid, density, 80, 4, bandwidth, nodes, weights, 0, Cost(hvp=320, seconds=14.0))


def _window_row(sigma: float, off: float, stderr: float) -> GapRow:
    predicted = sigma**2 / 2 * 48.3123
    predicted_stderr = sigma**2 / 2 * 0.41
    return GapRow(
        sigma=sigma,
        gap=predicted * (1 + off),
        std=None,
        stderr=math.hypot(predicted_stderr, predicted * stderr),
        predicted=predicted,
        predicted_stderr=predicted_stderr,
        relative_deviation=off,
        relative_deviation_stderr=stderr,
        remainder=predicted * off,
        remainder_stderr=predicted * stderr,
    )


_WINDOW = [(0.00323, 0.0003, 0.0014), (0.00456, 0.0011, 0.0025), (0.00645, 0.0012, 0.0039), (0.00912, -0.0056, 0.0049)]
AUTO = dataclasses.replace(
    FULL,
    command="gap",
    eigenvalues=None,
    trace=None,
    gap=dataclasses.replace(
        GAP,
        noise="per-batch",
        draws=8,
        rss=1.3e-4,
        rows=tuple(_window_row(*row) for row in [*_WINDOW, (0.0129, -0.0243, 0.007)]),
        fit=GapFit(Estimate(24.15615, 0.205), Estimate(0.126, 0.121), Estimate(-0.67, 0.18)),
        search=SigmaSearch(0.03, 0.0129, (0.00249, 0.318), True),
    ),
)

DENSITY = dataclasses.replace(
    FULL,
    command="density",
    eigenvalues=None,
    trace=None,
    gap=None,
    density=_density(),
    cost=Cost(hvp=320, seconds=14.0),
)

CROSSCHECK = dataclasses.replace(
    FULL,
    command="crosscheck",
    eigenvalues=None,
    trace=None,
    gap=None,
    crosscheck=CrosscheckResult(
        rows=(
            CrosscheckRow(
                "eigenvalues.largest", 12.3041832, 12.3041791, "dense float64", 3.3e-7, 1e-3, "relative", True
            ),
            CrosscheckRow(
                "eigenvalues.smallest", -0.2123456, -0.2123451, "dense float64", 2.4e-6, 1e-3, "relative", True
            ),
            CrosscheckRow("trace.value", 48.3123, 48.0211, "dense float64", 0.71, 4.0, "standard errors", True),
            CrosscheckRow("eigenvalues.largest", 12.3041832, 12.2987, "pyhessian", 4.5e-4, 1e-3, "relative", True),
            CrosscheckRow("trace.value", 48.3123, 52.4, "pyhessian", 5.12, 4.0, "standard errors", False),
            CrosscheckRow(
                "gradient_norm",
                0.00112345,
                None,
                "pyhessian",
                None,
                1e-6,
                "relative",
                None,
                "pyhessian averages batches of different size without weights: 1437 examples do not divide by 256",
            ),
        ),
        seed=0,
        cost=Cost(hvp=9000, seconds=61.0),
    ),
)

ALL = {
    "full": FULL,
    "partial": PARTIAL,
    "not_converged": NOT_CONVERGED,
    "split": SPLIT,
    "many_groups": MANY_GROUPS,
    "auto": AUTO,
    "density": DENSITY,
    "crosscheck": CROSSCHECK,
}
