"""Time and memory of Hessian-vector products over the whole data, 8 at a time, beside the peers'."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hessdiag import Problem
from tests.benchmarks.memory import peak_bytes, peak_here
from tests.benchmarks.networks import NETWORKS, network
from tests.benchmarks.page import Target, section, table
from tests.benchmarks.peers import CONTENDERS, Product, product_of, refusal
from tests.benchmarks.timing import Times, paired, ratio

PROBES = 8
ROUNDS = 5
TOLERANCE = 1e-2  # relative, between products that are to be the same

_SHARED = "both make the same second backward pass, which is most of the work"
_COUNTED = "the count of multiplications promises 1.6: the product itself is the same, PyHessian adds a gradient"
_FUSED = (
    "its vmap makes the first-order pass once for all 8 vectors, as hessdiag does, so the count of multiplications "
    "promises 1.06; it pays in memory"
)
TIMES = {
    ("PyHessian", "MLP"): (2.0, _COUNTED),
    ("PyHessian", "encoder"): (1.3, _SHARED),
    ("PyHessian", "causal"): (1.3, _SHARED),
    ("PyHessian", "ResNet"): (1.25, _SHARED),
    ("curvlinops", "encoder"): (1.4, _FUSED),
    ("curvlinops", "causal"): (1.4, _FUSED),
    ("curvlinops", "ResNet"): (1.4, _FUSED),
}
MEMORY_SHARE = 0.5  # of curvlinops' peak, on the transformers and the ResNet


@dataclass
class _Race:
    """One network: the times of all, why some take no part, how far products are from hessdiag's, and the peaks."""

    name: str
    parameters: int
    times: Times
    absent: dict[str, str]
    distances: dict[str, float]
    peaks: dict[str, float] = field(default_factory=dict)


def products(quick: bool) -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = ["MLP"] if quick else list(NETWORKS)
    races = [_race(name, device, quick) for name in names]
    return section(
        "Hessian-vector products",
        f"{PROBES} at a time over two batches of random data; milliseconds for one, medians of {_rounds(quick)} rounds "
        "in A B A B order. Peak memory in MB, of each program in a process of its own, beyond the model, the data and "
        "the vectors. Networks: MLP 784-256-256-10 (GELU), ResNet-20 (32 x 32 pictures, BatchNorm), encoder and "
        "causal: transformers of four layers, width 128, 64 tokens, with a head of two classes and with their "
        "embedding as head.",
        table(["network", "weights", "gradient", *CONTENDERS], [_times(race) for race in races]),
        table(["peak memory", *CONTENDERS], [_peaks(race) for race in races]),
        _said(races),
        [target for race in races for target in _targets(race)],
    )


def _rounds(quick: bool) -> int:
    return 1 if quick else ROUNDS


def _race(name: str, device: torch.device, quick: bool) -> _Race:
    size = 1 if quick else 8
    case = network(name, device, size)
    problem = Problem(case.model, case.loss, case.batches)
    V = torch.randn(problem.n, PROBES, generator=torch.Generator().manual_seed(1)).to(device)
    absent: dict[str, str] = {}
    distances: dict[str, float] = {}
    contenders: dict[str, Product] = {}
    with ExitStack() as stack:
        for program in CONTENDERS:
            try:
                product = stack.enter_context(product_of(program, case, problem, V))
                if contenders:
                    distances[program] = _distance(product(), contenders["hessdiag"]())
                contenders[program] = product
            except Exception as error:  # a peer that fails is named, whatever it fails of
                if program == "hessdiag":
                    raise
                absent[program] = refusal(error)
        times = paired(contenders | {"gradient": problem.gradient}, _rounds(quick), device)
        race = _Race(name, problem.n, times, absent, distances)
    peak = peak_here if quick else peak_bytes
    for program in contenders:
        try:
            race.peaks[program] = peak(name, program, PROBES, size) / 1e6
        except RuntimeError as error:
            absent[f"{program}'s memory"] = refusal(error)
    return race


def _distance(product: Tensor, ours: Tensor) -> float:
    """Relative; a race between programs that compute different things is no race."""
    distance = float(torch.linalg.vector_norm(product - ours) / torch.linalg.vector_norm(ours))
    if not distance <= TOLERANCE:
        raise ArithmeticError(f"its product is another one: relative distance {distance:.1e}")
    return distance


def _times(race: _Race) -> list[str]:
    each = {name: 1000 * sorted(times)[len(times) // 2] for name, times in race.times.items()}
    cells = [f"{each[program] / PROBES:.1f}" if program in each else "none" for program in CONTENDERS]
    return [race.name, f"{race.parameters:,}", f"{each['gradient']:.1f}", *cells]


def _peaks(race: _Race) -> list[str]:
    return [race.name, *[f"{race.peaks[p]:.0f}" if p in race.peaks else "none" for p in CONTENDERS]]


def _said(races: list[_Race]) -> str:
    lines = [
        f"- {race.name}: a product costs {ratio(race.times, 'hessdiag', 'gradient') / PROBES:.2f} gradients; relative "
        "distance of the products from hessdiag's: "
        + ", ".join(f"{program} {distance:.0e}" for program, distance in race.distances.items())
        for race in races
    ]
    lines += [f"- {race.name}: {name} takes no part: {why}" for race in races for name, why in race.absent.items()]
    return "\n".join(lines)


def _targets(race: _Race) -> list[Target]:
    found = []
    for (peer, name), (bound, because) in TIMES.items():
        if name == race.name and peer in race.times:
            what = f"{race.name}, time of {peer} over hessdiag's"
            found.append(Target(what, ratio(race.times, peer, "hessdiag"), bound, because=because))
    if race.name != "MLP" and {"curvlinops", "hessdiag"} <= race.peaks.keys():
        share = race.peaks["hessdiag"] / race.peaks["curvlinops"]
        because = "the graph that all products share is itself most of the memory"
        what = f"{race.name}, hessdiag's peak memory over curvlinops'"
        found.append(Target(what, share, MEMORY_SHARE, at_least=False, because=because))
    return found
