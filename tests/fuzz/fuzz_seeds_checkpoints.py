"""Checkpoints of every family, whose files are named ``saved...``, and payloads, which must never run."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import tiny
import torch
from fuzz_seeds import recipe, write_arrays, write_spec
from safetensors.torch import save_file

SAVED = ("saved",)
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0, 1, 2, 3]}]}
HF = ("transformers.models.bert.modeling_bert", "transformers.models.gpt2.modeling_gpt2", "peft")


def simple(name: str, save: Callable[[Path], None]) -> None:
    """Register a checkpoint of the tiny network."""

    def write(folder: Path) -> tuple[str, ...]:
        write_arrays(folder, "saved")
        save(folder / "saved")
        return SAVED

    write.__name__ = name
    recipe("checkpoints")(write)


def lightning() -> dict[str, object]:
    return {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in tiny.weights().items()},
        "optimizer_states": [OPTIMIZER],
        "hyper_parameters": {"lr": 0.1, "path": Path("x")},
    }


class Runs:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ../RAN",)


def script(path: Path) -> None:
    """What ``torch.jit.save`` writes, which torch calls deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(tiny.network(), torch.ones(1, 4)), str(path))


simple("state_dict", lambda path: torch.save(tiny.weights(), path))
simple("legacy", lambda path: torch.save(tiny.weights(), path, _use_new_zipfile_serialization=False))
simple("wrapped", lambda path: torch.save({"epoch": 3, "model": tiny.weights(), "optimizer": OPTIMIZER}, path))
simple("lightning", lambda path: torch.save(lightning(), path))
simple("safetensors", lambda path: save_file(tiny.weights(), path, {"format": "pt", "note": "by hand"}))
simple("pickled_module", lambda path: torch.save(tiny.network(), path))
simple("payload", lambda path: torch.save({**tiny.weights(), "evil": Runs()}, path))
simple("payload_bare", lambda path: path.write_bytes(pickle.dumps(Runs())) and None)
simple("torchscript", script)
simple("gguf", lambda path: path.write_bytes(b"GGUF\3\0\0\0" + bytes(range(200))) and None)
simple(
    "onnx", lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x032.0:\x20" + b"\x0a\x1e" + bytes(30)) and None
)


@recipe("checkpoints")
def sharded(folder: Path) -> tuple[str, ...]:
    write_arrays(folder, "saved")
    (folder / "saved").mkdir()
    tensors = tiny.weights()
    names = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in tensors if names[name] == file}, folder / "saved" / file)
    index = {"metadata": {"total_size": 172}, "weight_map": names}
    (folder / "saved" / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return SAVED


@recipe("checkpoints")
def sharded_bin(folder: Path) -> tuple[str, ...]:
    write_arrays(folder, "saved")
    (folder / "saved").mkdir()
    tensors = tiny.weights()
    names = {name: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, name in enumerate(tensors)}
    for file in set(names.values()):
        torch.save({name: tensors[name] for name in tensors if names[name] == file}, folder / "saved" / file)
    index = {"metadata": {"total_size": 172}, "weight_map": names}
    (folder / "saved" / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1))
    return SAVED


@recipe("checkpoints")
def accelerate(folder: Path) -> tuple[str, ...]:
    write_arrays(folder, "saved")
    (folder / "saved").mkdir()
    save_file(tiny.weights(), folder / "saved" / "model.safetensors")
    torch.save(OPTIMIZER, folder / "saved" / "optimizer.bin")
    torch.save({"step": 3, "random_state": torch.get_rng_state()}, folder / "saved" / "random_states_0.pkl")
    return SAVED


@recipe("checkpoints", modules=("torch.distributed.checkpoint",))
def distributed(folder: Path) -> tuple[str, ...]:
    from torch.distributed import checkpoint

    write_arrays(folder, "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is there: none is needed
        checkpoint.save({"model": tiny.weights()}, checkpoint_id=folder / "saved", no_dist=True)
    return SAVED


def quietly(save: Callable[[], object]) -> None:
    """Without the library's bars and warnings."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        save()


@recipe("checkpoints", needs=("transformers",), modules=HF[:2])
def bert(folder: Path) -> tuple[str, ...]:
    """A Hugging Face folder, which says itself what builds the network."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=3, **sizes)
    torch.manual_seed(1)
    model = BertForSequenceClassification(config).eval()
    quietly(lambda: model.save_pretrained(folder / "saved"))
    random = np.random.default_rng(0)
    np.savez(folder / "data.npz", ids=random.integers(2, 20, (6, 5)), y=random.integers(0, 3, 6))
    write_spec(folder, "checkpoint: saved", "format: npz, path: data.npz, inputs: {input_ids: ids}, targets: y")
    return SAVED


@recipe("checkpoints", needs=("transformers", "peft"), modules=HF)
def adapter(folder: Path) -> tuple[str, ...]:
    """A PEFT adapter on GPT-2; its base is left alone."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    config = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=8, bos_token_id=1, eos_token_id=1)
    base = GPT2LMHeadModel(config).eval()
    quietly(lambda: base.save_pretrained(folder / "base"))
    lora = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    quietly(lambda: get_peft_model(base, lora).save_pretrained(folder / "saved"))
    (folder / "saved" / "README.md").unlink(missing_ok=True)
    np.savez(folder / "data.npz", ids=np.random.default_rng(0).integers(2, 20, (6, 5)))
    data = "format: npz, path: data.npz, inputs: {input_ids: ids}, targets: ids"
    write_spec(folder, "checkpoint: saved, base: base", data, "causal_lm")
    return SAVED
