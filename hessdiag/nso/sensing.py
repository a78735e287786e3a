"""Section 3.1's simulation: GD, WP-GD and NSO on matrix sensing, from one start and with the same noise."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.filesize import decimal
from torch import Tensor

from hessdiag.cost import Meter
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import MeasurementError
from hessdiag.estimators.eigenvalues import eigenvalues
from hessdiag.estimators.trace import trace
from hessdiag.memory import available_memory
from hessdiag.nso.noise import Noise
from hessdiag.nso.sensing_problem import MatrixSensing
from hessdiag.simulation import SENSING_METHODS, Sensing, SensingMethod, SensingRun, SensingSettings

__all__ = ["sensing", "simulate"]

_POINTS = 200  # of a curve, about
_LARGE = 2_000_000  # entries of all measurements, from which several threads pay
_RTOL = 0.01  # of the estimated trace: half of its interval


def sensing(settings: SensingSettings, seeds: range, meter: Meter | None = None) -> Iterator[Sensing]:
    """Simulate with each seed in turn.

    Args:
        settings: what is simulated.
        seeds: of measurements, truth, start and noise.
        meter: counts the gradients of all methods.

    Yields:
        The simulation after each seed, partial until the last.

    Raises:
        MeasurementError: as :func:`simulate`.
    """
    meter = Meter() if meter is None else meter
    meter.expect(len(seeds) * settings.steps * sum(SENSING_METHODS.values()))
    environment = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
    runs: tuple[SensingRun, ...] = ()
    for seed in seeds:
        runs += (simulate(settings, seed, meter),)
        yield Sensing(settings, runs, "complete" if len(runs) == len(seeds) else "partial", meter.read(), environment)


def simulate(settings: SensingSettings, seed: int = 0, meter: Meter | None = None) -> SensingRun:
    """GD, WP-GD and NSO from one start W, with g the gradient over all examples and the same U in each step.

    GD: W - lr g(W). WP-GD: W - lr g(W + U). NSO: W - lr/2 (g(W + U) + g(W - U)). They are the steps of
    :class:`hessdiag.nso.WPSGD` and :class:`hessdiag.nso.NSO` around plain SGD, with their noise, all at once.

    Args:
        settings: what is simulated.
        seed: of measurements, truth, start and noise.
        meter: counts the gradients of all methods.

    Returns:
        About 200 points of each curve, the exact trace and lambda_1 of the last weights, and what
        :func:`hessdiag.trace` and :func:`hessdiag.eigenvalues` find there.

    Raises:
        MeasurementError: a method diverged, or the memory does not hold the measurements.

    Source: arXiv 2306.08553, section 3.1 and Figure 3.
    """
    _refuse_too_large(settings)
    problem = MatrixSensing(
        dimension=settings.dimension,
        rank=settings.rank,
        width=settings.width,
        examples=settings.examples,
        seed=seed,
    )
    steps, training, validation = [], [], []
    with _few_threads(settings):
        for step, W in _trained(problem, settings, seed, Meter() if meter is None else meter):
            steps.append(step)
            training.append(problem.loss(W))
            validation.append(problem.validation_loss(W))
            _refuse_divergence(training[-1], step, settings)
        curves = zip(torch.stack(training, 1).tolist(), torch.stack(validation, 1).tolist(), strict=True)
        methods = [
            _method(name, problem, weights, losses, settings.steps, seed)
            for name, weights, losses in zip(SENSING_METHODS, W, curves, strict=True)
        ]
    return SensingRun(seed, tuple(steps), tuple(methods))


def _refuse_too_large(settings: SensingSettings) -> None:
    """Before the system, which may give more than it has, ends the program."""
    needed = 2 * 8 * settings.examples * settings.dimension * (settings.dimension + 1) // 2  # and as much for work
    free = available_memory(torch.device("cpu"))
    if needed > free:
        raise MeasurementError(
            f"{settings.examples} measurements of {settings.dimension} x {settings.dimension} take {decimal(needed)}, "
            f"and {decimal(free)} of memory are free: lower examples or dimension"
        )


@contextmanager
def _few_threads(settings: SensingSettings) -> Iterator[None]:
    """One thread for what is small: on a busy machine threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    if settings.examples * settings.dimension**2 < _LARGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trained(
    problem: MatrixSensing, settings: SensingSettings, seed: int, meter: Meter
) -> Iterator[tuple[int, Tensor]]:
    """The steps at which curves have their points, the last one too, and the weights of all methods (3, d, k)."""
    every = math.ceil(settings.steps / _POINTS)
    noise = Noise([problem.start], seed=seed)
    W = problem.start.expand(len(SENSING_METHODS), -1, -1)
    for step in range(settings.steps):
        if step % every == 0:
            yield step, W
        (U,) = noise.draw(step, 0, [settings.sigma])
        gd, wp, nso = W
        g = problem.gradient(torch.stack([gd, wp + U, nso + U, nso - U]))
        meter.add("gradient", len(g))
        W = W - settings.lr * torch.stack([g[0], g[1], (g[2] + g[3]) / 2])
    yield settings.steps, W


def _refuse_divergence(losses: Tensor, step: int, settings: SensingSettings) -> None:
    for name, loss in zip(SENSING_METHODS, losses.tolist(), strict=True):
        if not math.isfinite(loss):
            raise MeasurementError(
                f"{name} diverged: its loss is {loss} after {step} steps, expected a finite one: "
                f"lower lr (found {settings.lr:g}) or sigma (found {settings.sigma:g})"
            )


def _method(
    name: str, problem: MatrixSensing, W: Tensor, losses: tuple[list[float], list[float]], steps: int, seed: int
) -> SensingMethod:
    training, validation = losses
    last = math.ceil(len(training) / 10)
    H = HessianOperator(problem.at(W))
    return SensingMethod(
        name=name,
        gradients=SENSING_METHODS[name] * steps,
        training_loss=tuple(training),
        validation_loss=tuple(validation),
        final_training_loss=math.fsum(training[-last:]) / last,
        final_validation_loss=math.fsum(validation[-last:]) / last,
        trace=float(problem.trace(W)),
        lambda_1=problem.largest_eigenvalue(W),
        estimated_trace=trace(H, rtol=_RTOL, seed=seed),
        estimated_eigenvalues=eigenvalues(H, top=1, bottom=0, seed=seed),
    )
