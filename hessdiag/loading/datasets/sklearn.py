"""scikit-learn's bundled datasets, which come with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hessdiag.loading.datasets.arrays import ArrayExamples
from hessdiag.loading.extras import import_extra
from hessdiag.spec.data import SklearnData

__all__ = ["read"]

_PURPOSE = "data.format: sklearn"


def read(spec: SklearnData, resolve: Callable[[str], Path]) -> ArrayExamples:
    """Features (N, F) in float64 and targets: class numbers (N), or real numbers (N) or (N, outputs).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    load = getattr(import_extra("sklearn.datasets", _PURPOSE), f"load_{spec.name}")
    features, targets = load(return_X_y=True)
    features = np.asarray(features, np.float64)
    if spec.standardize:
        scaler = import_extra("sklearn.preprocessing", _PURPOSE).StandardScaler()
        features = scaler.fit_transform(features)
    return ArrayExamples(features, np.asarray(targets, np.int64 if targets.dtype.kind in "iu" else np.float64))
