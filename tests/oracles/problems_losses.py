"""Problems that differ in their loss: denominators, options, forms of targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles.models import Factored, Lambda, OwnLoss, OwnLossByName, Quadratic, Scalars, TinyGPT, mlp
from oracles.problems import Case, Run, oracle

N = 11
D = torch.float64


def inputs(*shape: int) -> Tensor:
    return torch.randn(N, *shape, dtype=D)


def classes(count: int = 3, *shape: int) -> Tensor:
    return torch.randint(count, (N, *shape))


def ignoring(targets: Tensor, ignore_index: int, *places: int) -> Tensor:
    targets = targets.clone()
    targets[list(places)] = ignore_index
    return targets


def ce(**options: Any) -> Callable[[Run, Any], Tensor]:
    return lambda run, data: F.cross_entropy(run(data[0]), data[1], **options)


WEIGHT = torch.tensor([0.2, 1.0, 3.5], dtype=D)


@oracle()
def softmax_regression() -> Case:
    return Case(nn.Linear(3, 4), "cross_entropy", (inputs(3), classes(4)), ce())


@oracle()
def ignore_index() -> Case:
    data = (inputs(3), ignoring(classes(), -100, 0, 4, 5, 6, 10))
    return Case(mlp(3, 4, 3), "cross_entropy", data, ce())


@oracle()
def ignore_index_within_the_classes() -> Case:
    from hessdiag.losses import CrossEntropy

    data = (inputs(3), ignoring(classes(), 1, 2, 3))
    return Case(mlp(3, 4, 3), CrossEntropy(ignore_index=1), data, ce(ignore_index=1))


@oracle()
def a_batch_of_ignored_targets() -> Case:
    data = (inputs(3), ignoring(classes(), -100, 0, 1, 2, 3, 9))
    return Case(mlp(3, 4, 3), "cross_entropy", data, ce(), sizes=(4, 4, 3))


@oracle()
def class_weights() -> Case:
    from hessdiag.losses import CrossEntropy

    data = (inputs(3), classes())
    return Case(mlp(3, 4, 3), CrossEntropy(weight=tuple(WEIGHT.tolist())), data, ce(weight=WEIGHT))


@oracle()
def label_smoothing() -> Case:
    from hessdiag.losses import CrossEntropy

    data = (inputs(3), classes())
    return Case(mlp(3, 4, 3), CrossEntropy(label_smoothing=0.2), data, ce(label_smoothing=0.2))


@oracle()
def class_weights_smoothing_and_ignored() -> Case:
    from hessdiag.losses import CrossEntropy

    options = {"label_smoothing": 0.3, "ignore_index": -1}
    data = (inputs(3), ignoring(classes(), -1, 1, 6, 7))
    loss = CrossEntropy(weight=tuple(WEIGHT.tolist()), **options)
    return Case(mlp(3, 4, 3), loss, data, ce(weight=WEIGHT, **options))


@oracle()
def probability_targets() -> Case:
    return Case(mlp(3, 4, 3), "cross_entropy", (inputs(3), inputs(3).softmax(1)), ce())


@oracle()
def probability_targets_weighted_and_smoothed() -> Case:
    from hessdiag.losses import CrossEntropy

    loss = CrossEntropy(weight=tuple(WEIGHT.tolist()), label_smoothing=0.1)
    data = (inputs(3), inputs(3).softmax(1))
    return Case(mlp(3, 4, 3), loss, data, ce(weight=WEIGHT, label_smoothing=0.1))


@oracle()
def a_class_for_each_position() -> Case:
    """Outputs (B, C, T), targets (B, T), with other numbers of valid targets in each example."""
    targets = classes(3, 5)
    targets[torch.rand(N, 5) < 0.4] = -100
    return Case(nn.Conv1d(2, 3, 3, padding=1), "cross_entropy", (inputs(2, 5), targets), ce())


@oracle()
def int32_targets_in_arrays() -> Case:
    def pack(batch: Any) -> Any:
        return batch[0].float().numpy(), batch[1].to(torch.int32).numpy()

    data = (inputs(3).float().double(), classes())
    return Case(mlp(3, 4, 3), "cross_entropy", data, ce(), pack=pack)


@oracle()
def torch_cross_entropy_module() -> Case:
    options = {"weight": WEIGHT, "ignore_index": -7, "label_smoothing": 0.15}
    data = (inputs(3), ignoring(classes(), -7, 3, 8))
    return Case(mlp(3, 4, 3), nn.CrossEntropyLoss(**options), data, ce(**options))


@oracle()
def torch_cross_entropy_function() -> Case:
    data = (inputs(3), ignoring(classes(), -100, 3, 8))
    return Case(mlp(3, 4, 3), F.cross_entropy, data, ce())


@oracle(forward_mode=False)  # torch's mse_loss: "ZeroTensors are immutable" (MeanSquaredError writes it out)
def own_subclass_of_a_torch_loss() -> Case:
    """A subclass computes what it likes: it must not be taken for its parent."""

    class Doubled(nn.MSELoss):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return 2 * super().forward(outputs, targets) + (outputs**4).mean()

    loss = Doubled()
    return Case(mlp(3, 4, 2), loss, (inputs(3), inputs(2)), lambda run, data: loss(run(data[0]), data[1]))


@oracle()
def nll_of_log_probabilities() -> Case:
    from hessdiag.losses import NegativeLogLikelihood

    model = nn.Sequential(mlp(3, 4, 3), nn.LogSoftmax(1))
    loss = NegativeLogLikelihood(ignore_index=-1, weight=tuple(WEIGHT.tolist()))
    data = (inputs(3), ignoring(classes(), -1, 0, 9))
    return Case(model, loss, data, lambda run, d: F.nll_loss(run(d[0]), d[1], weight=WEIGHT, ignore_index=-1))


@oracle(rows=True)  # LayerNorm on sequences, as in encoder_layer_in_train_mode
def causal_lm_with_padding() -> Case:
    tokens = torch.randint(1, 5, (N, 4))
    labels = tokens.clone()
    for row, length in enumerate((4, 1, 3, 2, 4, 4, 2, 3, 1, 4, 2)):  # a row of length 1 has nothing to predict
        labels[row, length:] = -100

    def mean(run: Run, data: Any) -> Tensor:
        return F.cross_entropy(run(data[0])[:, :-1].reshape(-1, 5), data[1][:, 1:].reshape(-1))

    return Case(TinyGPT(), "causal_lm", (tokens, labels), mean)


def mse(run: Run, data: Any) -> Tensor:
    return F.mse_loss(run(data[0]), data[1])


@oracle()
def mse_several_outputs() -> Case:
    return Case(mlp(3, 4, 3), "mse", (inputs(3), inputs(3)), mse)


@oracle()
def mse_targets_without_the_last_dimension() -> Case:
    data = (inputs(3), inputs())
    return Case(mlp(3, 5, 1), "mse", data, lambda run, d: ((run(d[0])[:, 0] - d[1]) ** 2).mean())


@oracle()
def mse_outputs_without_the_last_dimension() -> Case:
    model = nn.Sequential(mlp(3, 5, 1), Lambda(lambda x: x[:, 0]))
    return Case(model, "mse", (inputs(3), inputs(1)), lambda run, d: ((run(d[0]) - d[1][:, 0]) ** 2).mean())


@oracle()
def mse_images() -> Case:
    return Case(nn.Conv2d(1, 2, 2), nn.MSELoss(), (inputs(1, 3, 3), inputs(2, 2, 2)), mse)


def bce(**options: Any) -> Callable[[Run, Any], Tensor]:
    def mean(run: Run, data: Any) -> Tensor:
        outputs = run(data[0])
        return F.binary_cross_entropy_with_logits(outputs, data[1].to(outputs.dtype).view_as(outputs), **options)

    return mean


@oracle()
def bce_one_output() -> Case:
    return Case(mlp(3, 5, 1), "bce_with_logits", (inputs(3), classes(2)), bce())


@oracle()
def bce_several_outputs() -> Case:
    return Case(mlp(3, 4, 3), "bce_with_logits", (inputs(3), torch.rand(N, 3, dtype=D)), bce())


@oracle()
def bce_positive_weights() -> Case:
    loss = nn.BCEWithLogitsLoss(pos_weight=WEIGHT)
    return Case(mlp(3, 4, 3), loss, (inputs(3), classes(2, 3)), bce(pos_weight=WEIGHT))


@oracle()
def bce_positive_weights_of_image_channels() -> Case:
    """``pos_weight`` (3, 1, 1) weighs channels, though the images are 3 wide too."""
    weight = WEIGHT.reshape(3, 1, 1)
    data = (inputs(1, 3, 3), classes(2, 3, 3, 3).to(D))
    return Case(nn.Conv2d(1, 3, 1), nn.BCEWithLogitsLoss(pos_weight=weight), data, bce(pos_weight=weight))


@oracle()
def model_gives_sum_and_count() -> Case:
    data = (inputs(3), ignoring(classes(), -100, 0, 7))
    return Case(OwnLoss("sum and count"), "model", data, lambda run, d: (lambda s, c: s / c)(*run(*d)))


@oracle()
def model_gives_loss_object() -> Case:
    """The mean over the valid targets of each batch; one batch has none, where the model's mean is NaN."""
    data = (inputs(3), ignoring(classes(), -100, 0, 4, 5, 6, 7))
    return Case(OwnLoss("object"), "model", data, lambda run, d: run(*d).loss)


@oracle()
def model_gives_loss_dict_for_dict_batches() -> Case:
    data = {"x": inputs(3), "labels": ignoring(classes(), -100, 2, 3)}

    def pack(batch: Any) -> Any:
        return {"x": batch["x"].float().double(), "labels": batch["labels"].to(torch.int32)}

    case = Case(OwnLoss("dict"), "model", data, lambda run, d: run(**d)["loss"], pack=pack)
    case.data["x"] = case.data["x"].float().double()
    return case


@oracle(forward_mode=False)  # mse_loss again
def model_names_its_targets_itself() -> Case:
    """Targets in float32 under the name ``y``: they are cast, and given once."""

    def pack(batch: Any) -> Any:
        return {name: item.float() for name, item in batch.items()}

    data = {"x": inputs(3).float().double(), "y": inputs(2).float().double()}
    return Case(OwnLossByName(), "model", data, lambda run, d: run(**d).loss, pack=pack)


@oracle()
def own_function_of_units() -> Case:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.log1p((outputs - targets) ** 2).sum(1)

    data = (inputs(3), inputs(2))
    return Case(mlp(3, 4, 2), loss, data, lambda run, d: loss(run(d[0]), d[1]).mean())


@oracle()
def own_function_of_sum_and_count() -> Case:
    """Weighted examples."""

    def loss(outputs: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        return (targets["w"] * (outputs[:, 0] - targets["y"]) ** 2).sum(), targets["w"].sum()

    data = (inputs(3), {"y": inputs(), "w": torch.rand(N, dtype=D)})

    def mean(run: Run, data: Any) -> Tensor:
        total, count = loss(run(data[0]), data[1])
        return total / count

    return Case(mlp(3, 5, 1), loss, data, mean)


@oracle(forward_mode=False)  # torch's huber_loss has no rule
def own_function_of_a_mean() -> Case:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.huber_loss(outputs, targets, delta=100.0) + (outputs**4).mean()

    return Case(mlp(3, 4, 2), loss, (inputs(3), inputs(2)), lambda run, d: loss(run(d[0]), d[1]))


@oracle()
def linear_loss() -> Case:
    """H = 0."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0]

    return Case(nn.Linear(3, 1), loss, (inputs(3), inputs()), lambda run, d: run(d[0]).mean())


def first_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


@oracle()
def quadratic() -> Case:
    return Case(Quadratic(), first_output, (inputs(5), inputs()), lambda run, d: run(d[0]).mean())


@oracle()
def one_parameter() -> Case:
    return Case(Quadratic(1), "mse", (inputs(1), inputs()), mse)


@oracle()
def parameters_without_dimensions() -> Case:
    return Case(Scalars(), "mse", (inputs(2), inputs(2)), mse)


@oracle()
def matrix_sensing() -> Case:
    return Case(Factored(), "mse", (inputs(4, 4), inputs()), mse)
