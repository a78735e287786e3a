"""Traces, eigenvalues and whole Hessians that are known on paper."""

from __future__ import annotations

import pytest
import torch
from oracles.closed_forms import matrix_sensing_largest_at_interpolation, matrix_sensing_trace, two_layer_relu_trace
from oracles.models import Factored, TwoLayerReLU
from torch import Tensor, nn

from hessdiag import HessianOperator, Problem
from hessdiag.curvature import dense_hessian

D = torch.float64


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets) ** 2 / 2


def whole(H: HessianOperator) -> Tensor:
    return H.matmat(torch.eye(H.n, dtype=D))


@pytest.mark.parametrize(("inputs", "hidden", "classes"), [(4, 7, 3), (10, 16, 10), (1, 1, 2)])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_two_layer_rectifier_network(inputs: int, hidden: int, classes: int, scale: float) -> None:
    model = TwoLayerReLU(inputs, hidden, classes).double()
    with torch.no_grad():
        model.fc2.weight *= scale
    x, y = torch.randn(40, inputs, dtype=D), torch.randint(classes, (40,))
    problem = Problem(model, "cross_entropy", list(zip(x.split(16), y.split(16), strict=True)))
    truth = float(two_layer_relu_trace(model, x))
    assert float(dense_hessian(problem).trace()) == pytest.approx(truth, rel=1e-8)
    assert float(whole(HessianOperator(problem)).trace()) == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("symmetric", [True, False])
def test_matrix_sensing(symmetric: bool) -> None:
    model = Factored(6, 3).double()
    A, y = torch.randn(30, 6, 6, dtype=D), torch.randn(30, dtype=D)
    if symmetric:
        A = (A + A.transpose(1, 2)) / 2
    problem = Problem(model, half_square, list(zip(A.split(11), y.split(11), strict=True)))
    truth = float(matrix_sensing_trace(model, A, y))
    assert float(dense_hessian(problem).trace()) == pytest.approx(truth, rel=1e-8)
    assert float(whole(HessianOperator(problem)).trace()) == pytest.approx(truth, rel=1e-8)


def test_matrix_sensing_at_interpolation() -> None:
    model = Factored(6, 2).double()
    A = torch.randn(30, 6, 6, dtype=D)
    problem = Problem(model, half_square, [(A, model(A).detach())])
    largest = float(torch.linalg.eigvalsh(whole(HessianOperator(problem)))[-1])
    assert largest == pytest.approx(float(matrix_sensing_largest_at_interpolation(model, A)), rel=1e-8)


def test_linear_regression() -> None:
    """H = 2 X^T X / N with a column of ones for the bias, whatever the weights."""
    x, y = torch.randn(20, 4, dtype=D), torch.randn(20, 1, dtype=D)
    H = whole(HessianOperator(Problem(nn.Linear(4, 1).double(), "mse", list(zip(x.split(7), y.split(7), strict=True)))))
    design = torch.cat([x, torch.ones(20, 1, dtype=D)], 1)
    torch.testing.assert_close(H, 2 * design.T @ design / 20, rtol=1e-12, atol=1e-13)


def test_logistic_regression() -> None:
    """H = X^T diag(p (1 - p)) X / N."""
    model = nn.Linear(4, 1).double()
    x, y = torch.randn(20, 4, dtype=D), torch.randint(2, (20, 1))
    H = whole(HessianOperator(Problem(model, "bce_with_logits", list(zip(x.split(7), y.split(7), strict=True)))))
    design = torch.cat([x, torch.ones(20, 1, dtype=D)], 1)
    p = model(x).sigmoid().detach()
    torch.testing.assert_close(H, design.T @ (p * (1 - p) * design) / 20, rtol=1e-12, atol=1e-13)


def test_mse_with_several_outputs_divides_by_their_number() -> None:
    """The mean over examples of the mean over outputs: K outputs share one design, each 1/K of it."""
    x, y = torch.randn(12, 3, dtype=D), torch.randn(12, 5, dtype=D)
    H = whole(HessianOperator(Problem(nn.Linear(3, 5, bias=False).double(), "mse", [(x, y)])))
    torch.testing.assert_close(H, torch.kron(torch.eye(5, dtype=D), 2 * x.T @ x / 12 / 5), rtol=1e-12, atol=1e-13)
