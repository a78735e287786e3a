"""scikit-learn's bundled sets, as scikit-learn gives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hessdiag.errors import HessdiagError
from hessdiag.loading.datasets import load_data, sklearn
from hessdiag.loading.extras import MissingExtraError
from hessdiag.spec.data import SklearnData

datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")

TARGETS = {
    "digits": torch.int64,
    "iris": torch.int64,
    "wine": torch.int64,
    "breast_cancer": torch.int64,
    "diabetes": torch.float64,
    "linnerud": torch.float64,
}


def read(name, **options):
    data = load_data(SklearnData(format="sklearn", name=name, **options), None)
    batches = list(data)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


@pytest.mark.parametrize("name", TARGETS)
def test_features_and_targets(name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    features, targets = read(name, batch_size=100)
    assert features.dtype is torch.float64
    assert features.tolist() == x.tolist()
    assert targets.dtype is TARGETS[name]
    assert targets.tolist() == y.tolist()


def test_standardised_features_over_all_examples():
    x, _ = datasets.load_digits(return_X_y=True)
    features, _ = read("digits", standardize=True)
    spread = x.std(0)
    expected = (x - x.mean(0)) / np.where(spread == 0, 1, spread)  # some pixels are white throughout
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-12)
    some, _ = read("digits", standardize=True, max_examples=10)
    rows = np.sort(np.random.default_rng(0).choice(len(x), 10, replace=False))
    assert torch.equal(some, features[torch.from_numpy(rows)])


def test_without_scikit_learn(monkeypatch):
    def missing(module, purpose):
        raise MissingExtraError(f"{purpose}: needs {module}")

    monkeypatch.setattr(sklearn, "import_extra", missing)
    with pytest.raises(HessdiagError, match=r"data\.format: sklearn: needs sklearn\.datasets"):
        read("iris")
