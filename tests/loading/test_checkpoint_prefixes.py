"""Names with the prefixes of wrappers, and what is said where names and shapes do not fit."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn
from torch_files import holds, load, moved, prefixed, refusal

W = tiny.weights()


class Lightning(nn.Module):
    """A network inside a module that trains it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny.network()


def compiled_inside() -> dict[str, torch.Tensor]:
    """As torch.compile on single layers leaves the names."""
    return {name.replace("0.", "0._orig_mod.", 1): item for name, item in W.items()}


STRIPPED = {
    **{
        prefix: prefixed(prefix)
        for prefix in ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.model.", "a.b.c.d.")
    },
    "DataParallel": nn.DataParallel(tiny.network()).state_dict(),
    "compiled": torch.compile(tiny.network(), backend="eager").state_dict(),
    "Lightning": Lightning().state_dict(),
    "compiled inside": compiled_inside(),
    "compiled inside a wrapper": prefixed("module.", compiled_inside()),
    "FSDP": {name.replace("2.", "2._fsdp_wrapped_module.", 1): item for name, item in W.items()},
}


@pytest.mark.parametrize("name", STRIPPED)
def test_prefixes_are_taken_away_where_the_names_match_then(tmp_path, name):
    torch.save(STRIPPED[name], tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt")[0])


def test_what_stands_beside_the_prefix_is_left_out_and_named(tmp_path):
    torch.save(
        {**prefixed("net."), "criterion.weight": torch.ones(3), "accuracy.tp": torch.zeros(3)}, tmp_path / "w.pt"
    )
    model, info = load(tmp_path / "w.pt")
    assert holds(model)
    assert info.left_out == ("criterion.weight", "accuracy.tp")
    torch.save({**W, "criterion.weight": torch.ones(3)}, tmp_path / "w.pt")  # without a prefix, a part of the network
    assert "it has 1 tensor that the model lacks (first: criterion.weight (3,))" in refusal(tmp_path / "w.pt")


def test_a_model_that_has_the_prefix_itself_keeps_it(tmp_path):
    torch.save(Lightning().state_dict(), tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt", Lightning())[0].net)


def test_tied_weights_and_old_batch_norms_under_a_prefix(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head, self.norm = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), nn.BatchNorm1d(3)
            self.head.weight = self.embed.weight

    weights = {name: item + 1 for name, item in Tied().state_dict().items() if "batches" not in name}
    for dropped in ("embed.weight", "head.weight"):
        kept = {name: item for name, item in weights.items() if name != dropped}
        torch.save(prefixed("module.", kept), tmp_path / "w.pt")
        assert holds(load(tmp_path / "w.pt", Tied())[0], kept)


MISFITS = {
    "two prefixes": (
        {**prefixed("student."), **prefixed("teacher.")},
        "its names match the model's under 2 prefixes (student., teacher.), expected one: save the state dict of the "
        "one that you mean alone",
    ),
    "a name with the prefix and without": (
        {**prefixed("model."), "0.weight": torch.zeros(5, 4)},
        "its names match the model's under the prefix model., but some stand without it too (0.weight)",
    ),
    "half under a prefix": (
        {"net.0.weight": W["0.weight"], "net.0.bias": W["0.bias"], "net.9.weight": W["2.weight"]},
        "2 of its 3 names are the model's without the prefix 'net.': save the state dict of that part alone, or name "
        "in model.class_path what has all of it",
    ),
    "the head": (
        {**W, "2.weight": torch.zeros(100, 5), "2.bias": torch.zeros(100)},
        "2 tensors have another shape (first: 2.weight is (100, 5), the model expects (3, 5)); set model.init_args to "
        "the values that it was trained with (the head 2 has 100 outputs, the model 3)",
    ),
    "the head, under a prefix": (
        prefixed("module.", {**W, "2.weight": torch.zeros(100, 5), "2.bias": torch.zeros(100)}),
        "(the head 2 has 100 outputs, the model 3)",
    ),
    "an adapter": (
        {"base.0.lora_A.weight": torch.ones(2, 4), "base.0.lora_B.weight": torch.ones(5, 2)},
        "it has 2 tensors that the model lacks (first: base.0.lora_A.weight (2, 4), base.0.lora_B.weight (5, 2)); it "
        "holds an adapter (its names have lora_A, lora_B or their like): name the adapter's folder, or save the merged",
    ),
    "an optimizer's tensors": (
        {"0.exp_avg": torch.ones(2), "0.exp_avg_sq": torch.ones(2)},
        "it holds the state of an optimizer: name the checkpoint that has the weights",
    ),
    "nothing in common": (
        {"other.a": torch.ones(2)},
        "check that model.class_path and model.init_args build the network that was saved",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_the_likely_cause_is_told(tmp_path, name):
    tensors, words = MISFITS[name]
    torch.save(tensors, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert words in said, said


def test_a_model_with_a_prefix_of_its_own(tmp_path):
    torch.save(W, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", Lightning())
    assert (
        "the model's names begin with 'net.', and the checkpoint's do not: name in model.class_path what builds" in said
    )


def test_the_average_beside_the_weights_is_not_loaded_unasked(tmp_path):
    torch.save({**W, **prefixed("ema.", moved(W))}, tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt")[0])


class Kinds(nn.Module):
    """Tied weights, whole numbers, and a norm whose names changed in torch 2."""

    def __init__(self, norm=nn.utils.parametrizations.weight_norm) -> None:
        super().__init__()
        self.embed, self.head, self.last = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), norm(nn.Linear(4, 2))
        self.head.weight = self.embed.weight
        self.register_buffer("index", torch.arange(2))


def test_tied_weights_that_differ_are_of_another_network(tmp_path):
    torch.save({**Kinds().state_dict(), "head.weight": torch.zeros(4, 3)}, tmp_path / "w.pt")
    told = refusal(tmp_path / "w.pt", Kinds())
    assert "does not fit the model: embed.weight and head.weight differ, which are one tensor in the model" in told


def test_whole_numbers_saved_as_floating_point(tmp_path):
    weights = {**Kinds().state_dict(), "index": torch.tensor([3.0, 5.0])}
    torch.save(weights, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt", Kinds())[0].index.tolist() == [3, 5]
    torch.save({**weights, "index": torch.tensor([3.0, 5.5])}, tmp_path / "w.pt")
    told = refusal(tmp_path / "w.pt", Kinds())
    assert "1 tensor is of another kind of number (first: index is float32, the model expects int64)" in told


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_names_that_torch_itself_reads_as_its_new_ones(tmp_path):
    old = Kinds(nn.utils.weight_norm)
    torch.save(old.state_dict(), tmp_path / "w.pt")
    found = load(tmp_path / "w.pt", Kinds())[0]
    x = torch.eye(4)
    assert torch.equal(found.last(x), old.last(x))
