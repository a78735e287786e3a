"""BERT and GPT-2 of a few thousand weights, their data, and the comparison with a problem built by hand."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hessdiag import HessianOperator
from hessdiag.errors import CheckpointError
from hessdiag.loading import load_problem
from hessdiag.problem import Problem
from hessdiag.spec import load_spec

EXAMPLES, TIME, WORDS, LABELS = 10, 8, 40, 3
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


@contextmanager
def quiet():
    """The libraries' own bars and warnings, which are not what is tested."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def bert_config(**changed: Any) -> Any:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'hessdiag[hf]'"
    )
    return transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=12, num_labels=LABELS, **SIZES, **changed)


def bert() -> Any:
    from transformers import BertForSequenceClassification

    torch.manual_seed(1)
    return BertForSequenceClassification._from_config(bert_config(), attn_implementation="eager").eval()


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(2)
    config = GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=WORDS, n_positions=12, bos_token_id=1, eos_token_id=1
    )
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()


def save(model: Any, folder: Path, **options: Any) -> Path:
    with quiet():
        model.save_pretrained(folder, **options)
    return folder


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    ids, mask = random.integers(2, WORDS, (EXAMPLES, TIME)), np.ones((EXAMPLES, TIME), dtype=np.int64)
    mask[5:, 6:] = 0
    ids[mask == 0] = 0
    return {
        "ids": ids,
        "mask": mask,
        "label": random.integers(0, LABELS, EXAMPLES),
        "labels": np.where(mask == 1, ids, -100),
    }


def load(folder: Path, checkpoint: str, model: str = "", *, loss: str = "cross_entropy", **options: Any) -> Problem:
    """By a spec, as a user does."""
    np.savez(folder / "data.npz", **arrays())
    (folder / "audit.yaml").write_text(f"""\
model: {{checkpoint: {checkpoint}{", " * bool(model)}{model}}}
data:
  format: npz
  path: data.npz
  inputs: {{input_ids: ids, attention_mask: mask}}
  targets: {_targets(loss)}
  batch_size: 4
loss: {loss}
""")
    return load_problem(load_spec(folder / "audit.yaml"), **options)


def live(model: Any, loss: str = "cross_entropy") -> Problem:
    """By hand, from the model itself."""
    data = {name: torch.from_numpy(array) for name, array in arrays().items()}
    batches = [
        ({"input_ids": ids, "attention_mask": mask}, targets)
        for ids, mask, targets in zip(
            data["ids"].split(4), data["mask"].split(4), data[_targets(loss)].split(4), strict=True
        )
    ]
    return Problem(model, loss, batches)


def _targets(loss: str) -> str:
    return "labels" if loss == "causal_lm" else "label"


def assert_same(found: Problem, expected: Problem) -> None:
    """One loss and one H, bit for bit."""
    assert found.groups == expected.groups
    assert found.loss_value == expected.loss_value
    v = torch.randn(expected.n, generator=torch.Generator().manual_seed(0), dtype=expected.dtype)
    assert torch.equal(HessianOperator(found).matvec(v), HessianOperator(expected).matvec(v))


def message(folder: Path, checkpoint: str, model: str = "", **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder, checkpoint, model, **options)
    assert caught.value.exit_code == 3
    assert checkpoint.rpartition("/")[2] in str(caught.value)
    return str(caught.value)


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_evil(path: Path, marker: Path) -> None:
    """A torch file, or a bare pickle where that is what such a file is, whose loading makes ``marker``."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(Evil(marker)))
    else:
        torch.save({"weight": torch.ones(2), "evil": Evil(marker)}, path)
