"""Hugging Face folders and PEFT adapters."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from error_cases import provoke, write_spec
from error_cases_checkpoints import INDEX
from safetensors.torch import load_file, save_file

BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "id2label": {"0": "a", "1": "b"},
}


def write_data(folder: Path, model: str, loss: str = "cross_entropy") -> None:
    random = np.random.default_rng(0)
    np.savez(folder / "data.npz", ids=random.integers(2, 20, (6, 5)), y=random.integers(0, 2, 6))
    targets = "ids" if loss == "causal_lm" else "y"
    write_spec(folder, f"format: npz, path: data.npz, inputs: {{input_ids: ids}}, targets: {targets}", model, loss)


def write_bert(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    folder.mkdir()
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**{k: v for k, v in BERT.items() if k != "architectures"}))
    save_file({name: item.contiguous() for name, item in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(BERT))


def of_bert(
    title: str, change: Callable[[Path], Any] = lambda folder: None, *, varying: str | None = None, **config: Any
) -> None:
    """BERT's folder with other entries in its config (None: without), or changed otherwise."""

    def prepare(folder: Path) -> None:
        write_data(folder, "checkpoint: saved")
        write_bert(folder / "saved")
        changed = {name: value for name, value in {**BERT, **config}.items() if value is not None}
        (folder / "saved" / "config.json").write_text(json.dumps(changed))
        change(folder / "saved")

    provoke("transformers", title, prepare, needs="transformers", varying=varying)


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        found = {name: item.clone() for name, item in found.items()}
        change(found)
        save_file(found, folder / "model.safetensors")

    return write


of_bert("code of its own", auto_map={"AutoModel": "modeling.Net"})
of_bert("quantised", quantization_config={"quant_method": "gptq", "bits": 4})
of_bert("a count beyond all reason", num_hidden_layers=10**9)
of_bert("more layers than weights", num_hidden_layers=5000)
of_bert("a network beyond the memory", vocab_size=10**12)
of_bert("no architecture", architectures=None)
of_bert("an architecture that is not there", architectures=["NetForNothing"], varying=r"(?<=transformers )[\d.]+")
of_bert("an architecture of another family", architectures=["GPT2LMHeadModel"])
of_bert("a family that is not there", model_type="no-such-net", varying=r"(?<=config\.json \().*(?=\): it is)")
of_bert("sizes that do not go together", num_attention_heads=3, varying=r"(?<=config\.json \().*(?=\): it is)")
of_bert("other sizes", hidden_size=16)
of_bert("another number of labels", id2label={"0": "a", "1": "b", "2": "c"})
of_bert(
    "weights without their head",
    tensors(lambda found: [found.pop(name) for name in list(found) if "classifier" in name]),
)
of_bert("more weights than the network has", tensors(lambda found: found.update(more=torch.ones(1))))
of_bert("a config that is no JSON", lambda folder: (folder / "config.json").write_text("{"))
of_bert("no weights", lambda folder: (folder / "model.safetensors").unlink())
of_bert("weights for TensorFlow", lambda folder: (folder / "model.safetensors").rename(folder / "tf_model.h5"))
of_bert(
    "an index without its shards",
    lambda folder: (
        (folder / "model.safetensors").rename(folder / "x") and (folder / INDEX.replace("__", ".")).write_text("{}")
    ),
)
of_bert("a config of timm's", architectures=None, architecture="resnet18")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the libraries' bars and warnings."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def write_adapter(folder: Path, **config: Any) -> None:
    """On GPT-2, which lies beside it."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    base = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))
    lora = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True, **config)
    with quietly():
        base.save_pretrained(folder / "base")
        get_peft_model(base, lora).save_pretrained(folder / "saved")


def of_adapter(
    title: str,
    change: Callable[[Path], Any] = lambda folder: None,
    *,
    model: str = "checkpoint: saved, base: base",
    varying: str | None = None,
    saved: dict[str, Any] | None = None,
    **config: Any,
) -> None:
    def prepare(folder: Path) -> None:
        write_data(folder, model, "causal_lm")
        write_adapter(folder, **(saved or {}))
        path = folder / "saved" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        change(folder / "saved")

    provoke("adapters", title, prepare, needs="transformers peft", varying=varying)


def adapter_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        found = {name: item.clone() for name, item in load_file(folder / "adapter_model.safetensors").items()}
        change(found)
        save_file(found, folder / "adapter_model.safetensors")

    return write


of_adapter("a module to import", megatron_config={"a": 1}, megatron_core="evil")
of_adapter("a rank that is not the weights'", r=1000)
of_adapter("a kind that peft has not", peft_type="NOPE", varying=r"(?<=adapter_config\.json \().*(?=\): it is)")
of_adapter("a base that is no model", lambda folder: (folder.parent / "base" / "config.json").unlink())
of_adapter("no base named", model="checkpoint: saved", base_model_name_or_path="")
of_adapter("a base that is not here", model="checkpoint: saved", base_model_name_or_path="nobody/no-such-model")
of_adapter("another base", target_modules=["no_such_module"], varying=r"(?<=base model \().*(?=\): set)")
of_adapter("a tensor that is missing", adapter_tensors(lambda found: found.pop(next(iter(found)))))
of_adapter(
    "a tensor without a place", adapter_tensors(lambda found: found.update({"base_model.model.more": torch.ones(1)}))
)
of_adapter(
    "weights that are tied, merged",
    model="checkpoint: saved, base: base, adapter: merged",
    saved={"modules_to_save": None},
    target_modules=["lm_head"],
    change=adapter_tensors(lambda found: rename(found)),
)
of_adapter("no weights", lambda folder: (folder / "adapter_model.safetensors").unlink())


def rename(found: dict[str, torch.Tensor]) -> None:
    """Of the head, which GPT-2 ties to its embedding."""
    found.clear()
    head = "base_model.model.lm_head"
    found[f"{head}.lora_A.weight"], found[f"{head}.lora_B.weight"] = torch.ones(2, 8), torch.ones(20, 2)


def prompts(folder: Path) -> None:
    """In the place of the adapter one that learns a prompt, which no weight can take up."""
    import shutil

    from peft import PromptTuningConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    shutil.rmtree(folder)
    with quietly():
        base = GPT2LMHeadModel.from_pretrained(folder.parent / "base")
        get_peft_model(base, PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")).save_pretrained(folder)


def base_without(folder: Path) -> None:
    path = folder.parent / "base" / "model.safetensors"
    found = {name: item.clone() for name, item in load_file(path).items() if "ln_f" not in name}
    save_file(found, path)


of_adapter("a prompt, merged", prompts, model="checkpoint: saved, base: base, adapter: merged")
of_adapter("a task that its base has not", task_type="SEQ_2_SEQ_LM", varying=r"(?<=Seq2SeqLM \().*(?=\): it is)")
of_adapter("a base without some of its weights", base_without)
of_adapter("weights that lie elsewhere", adapters="nobody/other")
