"""BERT on pairs of sentences and GPT-2 with padding: products against independent ones, and however it is batched."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import texts
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from hessdiag.cli.app import app
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import DataError
from hessdiag.loading import load_problem
from hessdiag.loading.datasets import load_data
from hessdiag.problem import Problem
from hessdiag.spec import load_spec

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")

SIZES = (1, 2, 5, 7)


def bert() -> Any:
    sizes = {"hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=32, num_labels=2, **sizes)
    return transformers.BertForSequenceClassification(config)


def gpt2() -> Any:
    sizes = {"n_embd": 6, "n_layer": 2, "n_head": 2, "n_inner": 8, "n_positions": 64}
    config = transformers.GPT2Config(vocab_size=110, bos_token_id=0, eos_token_id=0, **sizes)
    return transformers.GPT2LMHeadModel(config)


BUILD = {"bert": bert, "gpt2": gpt2}
SPEC = """\
model: {class_path: model.py:KIND, checkpoint: weights.safetensors}
data:
  format: jsonl
  path: data.jsonl
  inputs: INPUTS
  tokenizer: tokenizer
  batch_size: 3
loss: LOSS
audit:
  eigenvalues: {top: 1, bottom: 0, rtol: 0.1}
  trace: {rtol: 0.9, max_matvecs: 4}
  gap: {sigma: [0.01], draws: 2}
"""

FEW = {
    "bert": ("classifier.weight", "bert.pooler.dense.bias", "*.layer.0.attention.self.query.*", "*.1.*LayerNorm.*"),
    "gpt2": ("transformer.h.0.attn.c_proj.*", "transformer.h.1.ln_1.*", "transformer.ln_f.*", "*.1.mlp.c_fc.weight"),
}


class Case:
    """A spec of a model with weights large enough that nothing is linear, and what the tokenizer makes of its data."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir()
        (folder / "model.py").write_text(f"import transformers\nAny = object\n{inspect.getsource(BUILD[kind])}")
        pairs = kind == "bert"
        save = texts.save_bert_tokenizer if pairs else texts.save_gpt2_tokenizer
        self.tokenizer = save(folder / "tokenizer")
        texts.write_lines(folder / "data.jsonl", texts.pairs() if pairs else [{"text": text} for text in texts.TEXTS])
        inputs, loss = ("[sentence1, sentence2]\n  targets: label", "cross_entropy") if pairs else ("text", "causal_lm")
        spec = SPEC.replace("KIND", kind).replace("INPUTS", inputs).replace("LOSS", loss)
        (folder / "audit.yaml").write_text(spec)
        save_file(self._weights(), folder / "weights.safetensors")

    def _weights(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(2)
        weights = {}
        for name, parameter in BUILD[self.kind]().named_parameters():  # without the tied head of GPT-2
            noise = torch.randn(parameter.shape, generator=generator) / 2
            weights[name] = noise + 1 if name.endswith("weight") and parameter.ndim == 1 else noise
        return weights

    def load(self, *overrides: str, include: tuple[str, ...] = ("*",)) -> Problem:
        few = [f"parameters.include={json.dumps(include)}"]
        return load_problem(load_spec(self.folder / "audit.yaml", [*few, *overrides]), dtype="float64")

    def mean(self, model: nn.Module) -> Tensor:
        """The loss from the raw logits of one text after the other, which are never padded."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        if self.kind == "bert":
            for one, two, label in texts.PAIRS:
                logits = model(**self.tokenizer(one, two, return_tensors="pt")).logits
                total, count = total - logits[0].log_softmax(0)[label], count + 1
        else:
            for text in texts.TEXTS:
                tokens = self.tokenizer(text, return_tensors="pt")["input_ids"]
                guesses = model(input_ids=tokens).logits[0, :-1].log_softmax(1)
                for guess, token in zip(guesses, tokens[0, 1:], strict=True):
                    total, count = total - guess[token], count + 1
        return total / count


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("transformers") / request.param, request.param)


def differ(one: Tensor, other: Tensor) -> float:
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))


def vectors(n: int, count: int) -> Tensor:
    return torch.randn(n, count, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@pytest.fixture(scope="module")
def dense(case: Case) -> Tensor:
    """Of the few weights: every row of the Hessian by a second backward pass, with eager attention in the model."""
    problem = case.load(include=FEW[case.kind])
    model = problem.model.eval()
    model.set_attn_implementation("eager")
    parameters = list(problem.parameters.values())
    gradient = flat(torch.autograd.grad(case.mean(model), parameters, create_graph=True))
    rows = [flat(torch.autograd.grad(entry, parameters, retain_graph=True)) for entry in gradient]
    return torch.stack(rows)


def test_products_are_those_of_the_dense_hessian(case: Case, dense: Tensor) -> None:
    problem = case.load(include=FEW[case.kind])
    assert problem.model.training  # as its factory left it, with dropout
    assert problem.model.config._attn_implementation == "sdpa"
    assert 50 < problem.n < 200
    assert differ(dense, dense.T) < 1e-10
    assert torch.linalg.matrix_rank(dense) > problem.n // 2  # much to get wrong
    assert problem.loss_value == pytest.approx(case.mean(problem.model.eval()).item(), rel=1e-12)
    V = vectors(problem.n, 5)
    assert differ(HessianOperator(problem).matmat(V), dense @ V) < 1e-8


def test_products_over_all_weights_are_those_of_finite_differences(case: Case) -> None:
    problem = case.load()
    v = vectors(problem.n, 1)[:, 0]
    v /= torch.linalg.vector_norm(v)
    product = HessianOperator(problem).matvec(v)
    model, step = problem.model.eval(), 1e-4
    parameters = list(problem.parameters.values())
    assert sum(parameter.numel() for parameter in model.parameters()) == problem.n

    def gradient(scale: float) -> Tensor:
        with torch.no_grad():
            for parameter, part in zip(parameters, problem.unflatten(v), strict=True):
                parameter.add_(part, alpha=scale)
        return flat(torch.autograd.grad(case.mean(model), parameters))

    ahead, behind = gradient(step), gradient(-2 * step)
    assert differ((ahead - behind) / (2 * step), product) < 1e-6


def test_the_size_of_batches_changes_nothing(case: Case) -> None:
    problems = [case.load(f"data.batch_size={size}") for size in SIZES]
    V = vectors(problems[0].n, 2)
    products = [HessianOperator(problem).matmat(V) for problem in problems]
    assert all(differ(product, products[0]) < 1e-10 for product in products)
    assert all(problem.loss_value == pytest.approx(problems[0].loss_value, rel=1e-12) for problem in problems)
    assert len({problem.data_info.fingerprint for problem in problems}) == 1
    assert len({problem.weight for problem in problems}) == 1


def test_more_padding_changes_nothing(case: Case) -> None:
    def wider(batch: Any) -> Any:
        (inputs, targets) = batch
        padded = {name: nn.functional.pad(tensor, (0, 5)) for name, tensor in inputs.items()}
        return padded, nn.functional.pad(targets, (0, 5), value=-100) if targets.ndim == 2 else targets

    problem = case.load()
    spec = load_spec(case.folder / "audit.yaml")
    batches = list(load_data(spec.data, spec.resolve))
    more = Problem(problem.model, problem.loss, [wider(batch) for batch in batches])
    V = vectors(problem.n, 2)
    assert more.loss_value == pytest.approx(problem.loss_value, rel=1e-12)
    assert differ(HessianOperator(more).matmat(V), HessianOperator(problem).matmat(V)) < 1e-10
    assert more.data_info.fingerprint == problem.data_info.fingerprint


def test_the_denominator(case: Case) -> None:
    """Examples, or target tokens: of every text one less than it has, since none is guessed from nothing."""
    expected = len(texts.PAIRS)
    if case.kind == "gpt2":
        lengths = [len(case.tokenizer(text)["input_ids"]) for text in texts.TEXTS]
        assert 1 in lengths  # a text without any target
        expected = sum(lengths) - len(lengths)
    problem = case.load("data.batch_size=2")
    assert problem.weight == expected
    assert problem.examples == 7


def test_the_loss_that_the_model_computes_itself(case: Case) -> None:
    if case.kind == "gpt2":
        with pytest.raises(DataError, match="use loss 'causal_lm' instead"):
            case.load("loss=model")
        return
    own, ours = case.load("loss=model"), case.load()
    V = vectors(own.n, 2)
    assert own.loss_value == pytest.approx(ours.loss_value, rel=1e-12)
    assert differ(HessianOperator(own).matmat(V), HessianOperator(ours).matmat(V)) < 1e-10


def test_an_audit_by_the_command_line(case: Case, dense: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    few = f"parameters.include={json.dumps(FEW[case.kind])}"
    result = CliRunner().invoke(app, ["audit", "audit.yaml", "--set", few, "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    problem = case.load(include=FEW[case.kind])
    assert report["status"] == "complete"
    assert report["loss"] == pytest.approx(problem.loss_value, rel=1e-5)
    assert report["data"] == {
        "examples": 7,
        "weight": problem.weight,
        "batches": 3,
        "fingerprint": problem.data_info.fingerprint,
    }
    largest = torch.linalg.eigvalsh(dense)[-1].item()
    assert report["eigenvalues"]["largest"][0]["value"] == pytest.approx(largest, rel=0.05)
