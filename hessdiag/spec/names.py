"""The words that a spec and the command line share, in one place and without pydantic."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "DEFAULT_SIGMAS",
    "Adapter",
    "DataFormat",
    "Distribution",
    "EigenvalueMethod",
    "GapEstimator",
    "GapNoise",
    "LossName",
    "TraceMethod",
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

DEFAULT_SIGMAS = (0.008, 0.01, 0.012)
"""The paper's search range for the noise of training (arXiv 2306.08553)."""
