"""The words that a spec and the command line share, in one place and without pydantic."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "DEFAULT_SIGMAS",
    "FEWEST_MATVECS",
    "Adapter",
    "DataFormat",
    "Distribution",
    "EigenvalueMethod",
    "GapEstimator",
    "GapNoise",
    "LossName",
    "NoiseDistribution",
    "ScheduleName",
    "TraceMethod",
    "TrainingMethod",
    "Weights",
]

DataFormat = Literal[
    "npz",
    "safetensors",
    "idx",
    "cifar",
    "imagefolder",
    "csv",
    "parquet",
    "jsonl",
    "hf",
    "sklearn",
    "tudataset",
    "python",
]
LossName = Literal["cross_entropy", "mse", "bce_with_logits", "nll", "causal_lm", "model"]
Adapter = Literal["only", "merged"]
Weights = Literal["model", "ema"]
EigenvalueMethod = Literal["lanczos", "power"]
TraceMethod = Literal["auto", "gauss-newton", "hutchinson", "hutch++", "xtrace", "deflated"]
GapEstimator = Literal["two-sided", "one-sided"]
GapNoise = Literal["per-batch", "shared"]
Distribution = Literal["gaussian", "laplace", "uniform", "binomial"]
TrainingMethod = Literal["nso", "sgd", "label-smoothing", "wp-sgd", "sam", "asam", "rsam", "bsam", "rsp", "sap"]
NoiseDistribution = Literal["gaussian", "laplace", "uniform", "binomial", "binomial-uncentered"]
ScheduleName = Literal["constant", "step", "cosine"]

FEWEST_MATVECS: dict[str, int] = {
    "auto": 2,
    "hutchinson": 2,
    "deflated": 3,  # a vector, and two probes outside it
    "gauss-newton": 4,  # two draws and two probes
    "hutch++": 4,  # a test vector, the product of its range, and two probes
    "xtrace": 6,  # three test vectors: the jackknife leaves out two
}
"""Passes without which a method of the trace has no standard error."""

DEFAULT_SIGMAS = (0.008, 0.01, 0.012)
"""The paper's search range for the noise of training (arXiv 2306.08553)."""
