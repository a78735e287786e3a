"""Problems that differ in their model: operations, parameters, inputs and outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles.models import (
    MultiheadAttention,
    Recurrent,
    Residual,
    SelfAttention,
    SequenceClassifier,
    StashedWeight,
    TiedByAttribute,
    TiedByParameter,
    TwoInputs,
    Unused,
    Wrapped,
    logits_dict,
    logits_object,
    mlp,
    with_statistics,
)
from oracles.problems import Case, Run, oracle
from oracles.problems_losses import N, ce, classes, inputs


def classifying(model: nn.Module, *shape: int, **options: Any) -> Case:
    return Case(model, "cross_entropy", (inputs(*shape), classes()), ce(), **options)


@oracle(smooth=False)
def relu() -> Case:
    return classifying(mlp(3, 6, 5, 3, act=nn.ReLU), 3, sizes=(5, 5, 1))


@oracle()
def gelu() -> Case:
    return classifying(mlp(3, 6, 5, 3, act=nn.GELU), 3, sizes=(1, 10))


@oracle()
def silu() -> Case:
    return classifying(mlp(3, 6, 3, act=nn.SiLU), 3)


@oracle()
def softplus() -> Case:
    return classifying(mlp(3, 6, 3, act=nn.Softplus), 3)


@oracle(smooth=False)
def relu_in_place() -> Case:
    return classifying(nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), 3)


@oracle()
def tied_by_parameter() -> Case:
    data = (torch.randint(6, (N,)), classes(6))
    selected = ("embed.weight", "mix.weight", "mix.bias")
    return Case(TiedByParameter(), "cross_entropy", data, ce(), selected=selected)


@oracle()
def tied_by_attribute() -> Case:
    selected = ("first.weight", "first.bias", "head.weight", "head.bias")
    return classifying(TiedByAttribute(), 3, selected=selected)


@oracle(forward_mode=False, rows=True)  # function transforms replace attributes, and miss the list
def weight_stashed_in_a_list() -> Case:
    return classifying(StashedWeight(), 3)


@oracle()
def frozen_parameters() -> Case:
    model = mlp(3, 4, 4, 3)
    model[2].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    return classifying(model, 3, selected=("0.weight", "4.weight", "4.bias"))


@oracle()
def unused_parameters() -> Case:
    return classifying(Unused(), 3)


@oracle()
def include_and_exclude() -> Case:
    names = ("0.weight", "4.weight")
    return classifying(mlp(3, 4, 4, 3), 3, include=("0.*", "4.*"), exclude=("*.bias",), selected=names)


@oracle()
def dropout_in_train_mode() -> Case:
    model = nn.Sequential(nn.Dropout(0.2), mlp(3, 5, 5), nn.AlphaDropout(0.5), nn.Linear(5, 3)).train()
    return classifying(model, 3)


@oracle()
def batch_norm() -> Case:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    return classifying(with_statistics(model).train(), 3)


@oracle(smooth=False)
def batch_norm_network_of_convolutions() -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 2),
        nn.BatchNorm2d(2, affine=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2, 3),
    )
    return classifying(with_statistics(model).train(), 1, 4, 4)


@oracle()
def convolution_1d_and_pooling() -> Case:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.SiLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(8, 3))
    return classifying(model, 2, 6)


@oracle()
def group_norm_and_adaptive_pooling() -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return classifying(model, 1, 4, 4)


@oracle()
def transposed_convolution() -> Case:
    model = nn.Sequential(nn.ConvTranspose2d(1, 3, 2, stride=2), nn.Tanh(), nn.Conv2d(3, 1, 3))
    data = (inputs(1, 3, 3), inputs(1, 4, 4))
    return Case(model, "mse", data, lambda run, d: F.mse_loss(run(d[0]), d[1]))


@oracle()
def residual_and_layer_norm() -> Case:
    return classifying(Residual(), 4)


@oracle()
def embedding() -> Case:
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Tanh(), nn.Linear(6, 3))
    return Case(model, "cross_entropy", (torch.randint(7, (N, 2)), classes()), ce())


@oracle(smooth=False, forward_mode=False, rows=True)  # backward mode alone holds the padding row constant
def embedding_with_a_padding_row() -> Case:
    model = nn.Sequential(nn.Embedding(7, 3, padding_idx=0), nn.Flatten(), nn.Tanh(), nn.Linear(6, 3))
    return Case(model, "cross_entropy", (torch.randint(7, (N, 2)), classes()), ce())


@oracle(bfloat16=False)  # no linalg.solve
def parametrized_weight() -> Case:
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley")
    return classifying(nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 3)), 3)


@oracle()
def fused_attention() -> Case:
    case = classifying(SequenceClassifier(SelfAttention()), 4, 3)
    case.explicit = SequenceClassifier(SelfAttention(explicit=True))
    return case


@oracle()
def attention_with_an_infinite_mask() -> Case:
    return classifying(SequenceClassifier(SelfAttention(masked=True, explicit=True)), 4, 3)


@oracle()
def multihead_attention_in_train_mode() -> Case:
    return classifying(SequenceClassifier(MultiheadAttention(), 4).train(), 3, 4)


@oracle(rows=True)  # torch.func.hessian errs: see test_layer_norm_under_transforms
def encoder_layer_in_train_mode() -> Case:
    layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.2, activation="gelu", batch_first=True)
    return classifying(SequenceClassifier(layer, 4).train(), 3, 4)


@oracle()
def lstm() -> Case:
    return classifying(SequenceClassifier(Recurrent(nn.LSTM)), 4, 2)


@oracle()
def gru() -> Case:
    return classifying(SequenceClassifier(Recurrent(nn.GRU)), 4, 2)


@oracle()
def rnn() -> Case:
    return classifying(SequenceClassifier(Recurrent(nn.RNN)), 4, 2)


@oracle()
def dict_inputs() -> Case:
    data = ({"b": inputs(2), "a": inputs(3)}, classes(4))
    return Case(TwoInputs(), "cross_entropy", data, lambda run, d: F.cross_entropy(run(**d[0]), d[1]))


def pair(run: Run, data: Any) -> Tensor:
    return F.cross_entropy(run(*data[0]), data[1])


@oracle()
def tuple_inputs() -> Case:
    return Case(TwoInputs(), "cross_entropy", ((inputs(3), inputs(2)), classes(4)), pair)


@oracle()
def list_inputs_as_a_data_loader_gives_them() -> Case:
    def pack(batch: Any) -> Any:
        return [list(batch[0]), batch[1]]

    return Case(TwoInputs(), "cross_entropy", ((inputs(3), inputs(2)), classes(4)), pair, pack=pack)


@oracle()
def dict_batches_with_labels() -> Case:
    data = {"a": inputs(3), "labels": classes(4), "b": inputs(2)}

    def mean(run: Run, data: Any) -> Tensor:
        return F.cross_entropy(run(data["a"], data["b"]), data["labels"])

    return Case(TwoInputs(), "cross_entropy", data, mean)


@oracle()
def outputs_with_logits() -> Case:
    return Case(
        Wrapped(logits_object),
        "cross_entropy",
        (inputs(3), classes()),
        lambda run, d: F.cross_entropy(run(d[0]).logits, d[1]),
    )


@oracle()
def dict_outputs_with_logits() -> Case:
    return Case(
        Wrapped(logits_dict),
        "cross_entropy",
        (inputs(3), classes()),
        lambda run, d: F.cross_entropy(run(d[0])["logits"], d[1]),
    )


@oracle()
def float32_data_for_a_float64_model() -> Case:
    data = (inputs(3).float().double(), classes())
    return Case(mlp(3, 4, 3), "cross_entropy", data, ce(), pack=lambda batch: (batch[0].to(torch.float32), batch[1]))


@oracle()
def shared_weight_across_time() -> Case:
    """A cell applied again and again: one weight, many places."""

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(3, 3)
            self.head = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), 3)
            for t in range(x.shape[1]):
                state = torch.tanh(self.cell(state) + x[:, t])
            return self.head(state)

    return Case(Unrolled(), "cross_entropy", (inputs(4, 3), classes()), ce())
