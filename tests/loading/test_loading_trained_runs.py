"""Fine-tuning what brings its own network: the run's folder is a target all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_transformers
import torch

import hessdiag
from hessdiag.nso.train import train
from hessdiag.spec import load_spec
from hessdiag.spec.targets import find_target

SPEC = """\
model: {MODEL}
data:
  format: npz
  path: data.npz
  inputs: {input_ids: ids, attention_mask: mask}
  targets: label
  batch_size: 4
audit: {eigenvalues: {top: 1, bottom: 0}, trace: {rtol: 0.5}, gap: null}
train: {epochs: 2, batch_size: 4, lr: 0.05, monitor_every: 0, validation: 0.2}
"""


def fine_tuned(folder: Path, model: str) -> tuple[hessdiag.Problem, hessdiag.Problem]:
    """The problem as it was, and as the run's folder gives it."""
    np.savez(folder / "data.npz", **small_transformers.arrays())
    (folder / "audit.yaml").write_text(SPEC.replace("MODEL", model))
    spec = load_spec(find_target(folder / "audit.yaml"))
    with small_transformers.quiet():
        trained = train(spec, folder / "run")
        before, after = hessdiag.load(folder / "audit.yaml"), hessdiag.load(folder / "run")
    assert trained.report.loss == after.loss_value
    assert after.loss_value < before.loss_value
    assert [group.name for group in after.groups] == [group.name for group in before.groups]
    return before, after


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    small_transformers.save(small_transformers.bert(), tmp_path / "bert")
    before, after = fine_tuned(tmp_path, "checkpoint: bert")
    assert not any(torch.equal(a, b) for a, b in zip(before.model.parameters(), after.model.parameters(), strict=True))


def test_an_adapter(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    small_transformers.save(small_transformers.bert(), tmp_path / "bert")
    with small_transformers.quiet():
        config = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", init_lora_weights=False)
        torch.manual_seed(3)
        small_transformers.save(peft.get_peft_model(small_transformers.bert(), config), tmp_path / "lora")
    before, after = fine_tuned(tmp_path, "checkpoint: lora, base: bert")
    assert 0 < before.n < sum(p.numel() for p in before.model.parameters())
    for name, parameter in before.model.named_parameters():
        if name not in before.parameters:
            assert torch.equal(parameter, dict(after.model.named_parameters())[name])
