"""A two-point step beside two plain ones: time, and peak memory in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from hessdiag.nso import NSO
from tests.benchmarks.memory import peak_of
from tests.benchmarks.networks import Transformer, resnet
from tests.benchmarks.page import Target, section, table
from tests.benchmarks.timing import paired, ratio

ROUNDS = 15
COPIES = 3  # of the parameters that a step may hold beside what plain SGD does: weights, noise, summed gradient
WIDE = 2048  # of the network whose memory is looked at: 12.6 million weights, a batch of next to nothing

Data = tuple[Tensor, Tensor]


def _small() -> tuple[nn.Module, Data]:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return model, (torch.randn(32, 64), torch.randint(10, (32,)))


def _plain_convolutions() -> tuple[nn.Module, Data]:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return model, (torch.randn(32, 3, 32, 32), torch.randint(10, (32,)))


def _residual() -> tuple[nn.Module, Data]:
    return resnet(), (torch.randn(32, 3, 32, 32), torch.randint(10, (32,)))


def _encoder() -> tuple[nn.Module, Data]:
    return Transformer(1000, classes=2), (torch.randint(1000, (16, 64)), torch.randint(2, (16,)))


def _wide() -> tuple[nn.Module, Data]:
    layers = [layer for _ in range(3) for layer in (nn.Linear(WIDE, WIDE), nn.ReLU())]
    return nn.Sequential(*layers), (torch.randn(2, WIDE), torch.randint(WIDE, (2,)))


NETWORKS: dict[str, tuple[Callable[[], tuple[nn.Module, Data]], int, float, str]] = {
    "small MLP": (
        _small,
        100,
        1.2,
        "two plain steps take 0.4 ms; drawing the noise and moving the weights takes a quarter of that",
    ),
    "transformer": (_encoder, 4, 1.05, "copies, noise and sums of the weights take their time"),
    "convolutions": (_plain_convolutions, 4, 1.05, "copies, noise and sums of the weights take their time"),
    "ResNet-20, BatchNorm": (_residual, 2, 1.25, "the clean forward pass is one of seven"),
}
"""By name: the network with a batch, steps in a measurement, the most that the ratio may be, and why if it is more."""


def steps(quick: bool) -> str:
    rows, targets = [], []
    for name, (make, count, most, because) in list(NETWORKS.items())[: 1 if quick else None]:
        plain, two_point = (_steps_of(make, method, count) for method in ("sgd", "nso"))
        times = paired({"sgd": plain, "nso": two_point}, 1 if quick else ROUNDS, torch.device("cpu"))
        milliseconds = [1e3 * median(times[method]) / count for method in ("sgd", "nso")]
        rows.append([name, f"{milliseconds[0]:.2f}", f"{milliseconds[1]:.2f}", f"{ratio(times, 'nso', 'sgd'):.3f}"])
        targets.append(Target(f"time, {name}", ratio(times, "nso", "sgd"), most, at_least=False, because=because))
    copies = _copies()
    rows_of_memory = [[f"{WIDE} wide, three layers", f"{copies:.2f}"]]
    targets.append(
        Target(
            "peak memory beyond SGD's, in copies of the parameters",
            copies,
            COPIES + 0.1,
            at_least=False,
            because="the allocator's rounding",
        )
    )
    return section(
        "Two-point steps",
        f"`NSO(model.parameters(), SGD, sigma=0.01, model=model)`, one step with k = 1, beside two steps of "
        f"torch.optim.SGD on the same minibatch: milliseconds, medians of {ROUNDS} rounds in A B A B order.",
        table(["network", "two SGD steps", "one NSO step", "ratio"], rows),
        table(["memory", "copies of the parameters beyond SGD's peak"], rows_of_memory),
        targets,
    )


def _steps_of(make: Callable[[], tuple[nn.Module, Data]], method: str, count: int) -> Callable[[], None]:
    """``count`` two-point steps, or twice as many plain ones, on a network of their own."""
    torch.manual_seed(0)
    model, (x, y) = make()
    options = {"lr": 1e-4}
    optimizer: torch.optim.Optimizer = (
        NSO(model.parameters(), torch.optim.SGD, sigma=0.01, model=model, **options)
        if method == "nso"
        else torch.optim.SGD(model.parameters(), **options)
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def run() -> None:
        for _ in range(count if method == "nso" else 2 * count):
            optimizer.step(closure)

    return run


def _copies() -> float:
    peaks = [_peak_in_a_child(method) for method in ("sgd", "nso")]
    parameters = 4 * sum(p.numel() for p in _wide()[0].parameters())
    return (peaks[1] - peaks[0]) / parameters


def _peak_in_a_child(method: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.steps", method], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    print(peak_of(_steps_of(_wide, sys.argv[1], 2), torch.device("cpu")))
