"""PEFT adapters: on the base that they name or the spec names, alone or merged, whole or refused."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from small_transformers import (
    LABELS,
    assert_same,
    bert,
    bert_config,
    gpt2,
    live,
    load,
    message,
    quiet,
    save,
    write_evil,
)
from torch import nn

from hessdiag.errors import UsageError
from hessdiag.loading.checkpoints import Reading, load_whole
from hessdiag.loading.extras import MissingExtraError
from hessdiag.spec import load_spec

peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'hessdiag[hf]'")


def trained(base: nn.Module, config: object) -> nn.Module:
    """An adapter that is none of its own initialisation."""
    with quiet():
        model = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
    return model.eval()


def lora(base: nn.Module) -> nn.Module:
    return trained(base, peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(gpt2(), folder / "gpt2")
    save(lora(gpt2()), folder / "lora")
    save(bert(), folder / "bert")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "lora", base_model_name_or_path=str(tmp_path / "gpt2"))
    return tmp_path


def change(folder: Path, **changed: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return {name: item.clone() for name, item in load_file(folder / "adapter_model.safetensors").items()}


def test_the_adapter_alone(folder, capfd):
    problem = load(folder, "lora", loss="causal_lm")
    assert problem.checkpoint.format == "peft"
    assert problem.n == 256
    assert all("lora_" in group.name for group in problem.groups)
    assert_same(problem, live(lora(gpt2()), "causal_lm"))
    assert problem.in_float64().loss_value == pytest.approx(problem.loss_value, rel=1e-5)
    assert capfd.readouterr() == ("", "")


def test_merged_into_the_weights(folder):
    problem = load(folder, "lora", "adapter: merged", loss="causal_lm")
    assert problem.loss_value == pytest.approx(load(folder, "lora", loss="causal_lm").loss_value, rel=1e-6)
    assert {group.name for group in problem.groups} == {group.name for group in live(gpt2(), "causal_lm").groups}
    assert_same(problem, live(lora(gpt2()).merge_and_unload().requires_grad_(True), "causal_lm"))


def test_torchs_own_file(folder):
    expected = load(folder, "lora", loss="causal_lm")
    torch.save(adapter(folder / "lora"), folder / "lora/adapter_model.bin")
    (folder / "lora/adapter_model.safetensors").unlink()
    assert_same(load(folder, "lora", loss="causal_lm"), expected)


@pytest.mark.parametrize("where", ["spec", "beside the adapter", "current folder"])
def test_where_the_base_is_found(folder, where, monkeypatch):
    monkeypatch.chdir(folder)
    if where == "spec":
        change(folder / "lora", base_model_name_or_path="somebody/gpt2")
    else:
        change(folder / "lora", base_model_name_or_path="../gpt2" if where == "beside the adapter" else "gpt2")
    problem = load(folder, "lora", "base: gpt2" if where == "spec" else "", loss="causal_lm")
    assert_same(problem, live(lora(gpt2()), "causal_lm"))


def test_the_loss_of_its_task(folder):
    load(folder, "lora", loss="causal_lm")
    text = (folder / "audit.yaml").read_text()
    (folder / "audit.yaml").write_text(text.replace("loss: causal_lm\n", ""))
    assert load_spec(folder / "audit.yaml").loss.name == "causal_lm"


def test_the_hubs_local_cache(folder, monkeypatch):
    import huggingface_hub

    hub = folder / "hub"
    cached = hub / "models--somebody--gpt2"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    (cached / "blobs").mkdir()
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for file in (folder / "gpt2").iterdir():  # as the hub lays a snapshot out
        shutil.copy(file, cached / "blobs" / file.name)
        (cached / "snapshots" / ("0" * 40) / file.name).symlink_to(f"../../blobs/{file.name}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    change(folder / "lora", base_model_name_or_path="somebody/gpt2")
    assert_same(load(folder, "lora", loss="causal_lm"), live(lora(gpt2()), "causal_lm"))
    change(folder / "lora", base_model_name_or_path="somebody/else")
    said = message(folder, "lora", loss="causal_lm")
    assert "its base model 'somebody/else' is neither the folder of a model nor in the hub's local cache" in said
    assert "set model.base to its folder, or run hf download somebody/else" in said


def test_the_digest_covers_the_base(folder):
    before = load(folder, "lora", loss="causal_lm").checkpoint.sha256
    other = gpt2()
    with torch.no_grad():
        other.transformer.wpe.weight.add_(1)
    save(other, folder / "gpt2")
    assert load(folder, "lora", loss="causal_lm").checkpoint.sha256 != before


def test_a_base_that_the_spec_builds(folder):
    """An adapter on any network, not of transformers alone."""
    spec = tiny.write(folder)
    model = trained(tiny.network(), peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["2"]))
    save(model, folder / "adapter")
    (folder / "base").mkdir()
    shutil.move(folder / "weights.safetensors", folder / "base/model.safetensors")
    problem = tiny.load(spec, "model.checkpoint=adapter", "model.base=base")
    from hessdiag.problem import Problem

    assert_same(problem, Problem(model, "cross_entropy", tiny.batches()))
    assert [group.size for group in problem.groups] == [8, 10, 15, 3]
    merged = tiny.load(spec, "model.checkpoint=adapter", "model.base=base", "model.adapter=merged")
    assert [group.name for group in merged.groups] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert merged.loss_value == pytest.approx(problem.loss_value, rel=1e-6)


def classifier(folder: Path, config: object) -> tuple[nn.Module, nn.Module]:
    """A classifier that an adapter makes of a pretrained encoder without such a head."""
    from transformers import BertForPreTraining, BertForSequenceClassification

    with quiet():
        save(BertForPreTraining(bert_config()), folder / "pretrained")
        base = BertForSequenceClassification.from_pretrained(
            folder / "pretrained", num_labels=LABELS, attn_implementation="eager"
        )
    model = trained(base, config)
    save(model, folder / "classifier")
    return model, base


@pytest.mark.parametrize("task", ["SEQ_CLS", None])
def test_the_head_comes_with_the_adapter(folder, task):
    saved = None if task else ["classifier"]
    model, _ = classifier(folder, peft.LoraConfig(task_type=task, r=2, target_modules=["query"], modules_to_save=saved))
    problem = load(folder, "classifier")
    assert any("classifier" in group.name for group in problem.groups)
    assert_same(problem, live(model))


def test_a_head_that_was_not_saved(folder):
    classifier(folder, peft.LoraConfig(r=2, target_modules=["query"]))
    said = message(folder, "classifier")
    assert "the weights do not fit the adapter's base model, BertForSequenceClassification: it lacks 2 of" in said
    assert "classifier.bias" in said
    assert "modules_to_save" in said


OTHERS = {
    "IA3": lambda: peft.IA3Config(task_type="SEQ_CLS", target_modules=["query"], feedforward_modules=[]),
    "DoRA": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], use_dora=True),
    "LoHa": lambda: peft.LoHaConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]),
    "biases": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], bias="all"),
    "prompt": lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_adapters(folder, name):
    model = trained(bert(), OTHERS[name]())
    model.base_model.name_or_path = model.peft_config["default"].base_model_name_or_path = str(folder / "bert")
    save(model, folder / "other")
    assert_same(load(folder, "other"), live(model))
    if name == "prompt":
        assert "PROMPT_TUNING cannot be merged into the weights: set model.adapter: only" in message(
            folder, "other", "adapter: merged"
        )
    else:
        merged = copy.deepcopy(model).merge_and_unload().requires_grad_(True)
        assert_same(load(folder, "other", "adapter: merged"), live(merged))


# -- never silently wrong ----------------------------------------------------------------------------------


def test_a_tensor_is_missing(folder):
    content = adapter(folder / "lora")
    first = sorted(content)[0]
    del content[first]
    save_file(content, folder / "lora/adapter_model.safetensors")
    assert f"it lacks 1 of the adapter's 4 tensors (first: {first.replace('.weight', '.default.weight')})" in message(
        folder, "lora", loss="causal_lm"
    )


def test_a_tensor_too_many_and_one_of_another_shape(folder):
    content = adapter(folder / "lora")
    first = sorted(content)[0]
    save_file(content | {first.replace("h.0", "h.7"): torch.zeros(2, 16)}, folder / "lora/adapter_model.safetensors")
    assert "it has 1 of 5 tensors that the base model has no place for" in message(folder, "lora", loss="causal_lm")
    save_file(content | {first: torch.zeros(2, 17)}, folder / "lora/adapter_model.safetensors")
    assert "the adapter does not fit its base model" in message(folder, "lora", loss="causal_lm")


def test_a_tied_weight_is_not_merged_into(folder):
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["wte"])
    save(trained(gpt2(), config), folder / "embedding")
    assert_same(load(folder, "embedding", "base: gpt2", loss="causal_lm"), live(trained(gpt2(), config), "causal_lm"))
    said = message(folder, "embedding", "base: gpt2, adapter: merged", loss="causal_lm")
    assert "which is tied to base_model.model.lm_head.weight" in said


CONFIGS = {
    "no type": ({"peft_type": None}, "peft cannot read adapter_config.json"),
    "unknown type": ({"peft_type": "NOTHING"}, "peft cannot read adapter_config.json"),
    "huge rank": ({"r": 10**10}, "says r: 10000000000, but no dimension of the adapter's tensors is larger than 48"),
    "huge rank of one": ({"rank_pattern": {"c_attn": 10**10}}, "says c_attn: 10000000000"),
    "other modules": ({"target_modules": ["nothing"]}, "the adapter does not fit its base model"),
    "no base": ({"base_model_name_or_path": None}, "adapter_config.json names no base model: set model.base"),
    "other adapters": ({"peft_type": "XLORA", "adapters": {"a": "b"}}, "names other checkpoints (adapters)"),
    "an import": ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "names a module to import (megatron_core)"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(folder, name):
    changed, words = CONFIGS[name]
    change(folder / "lora", **changed)
    assert words in message(folder, "lora", loss="causal_lm")


def test_a_base_that_is_not_there(folder):
    with pytest.raises(UsageError, match=r"model\.base: .*expected the folder of a Hugging Face model"):
        load(folder, "lora", "base: lora", loss="causal_lm")


def test_peft_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hessdiag\[hf\]'"):
        load(folder, "lora", loss="causal_lm")


def test_nothing_in_an_adapter_runs(folder):
    (folder / "lora/adapter_model.safetensors").unlink()
    write_evil(folder / "lora/adapter_model.bin", folder / "RAN")
    assert "refused" in message(folder, "lora", loss="causal_lm")
    assert not (folder / "RAN").exists()


def test_a_tokenizer_that_an_adapter_names_is_not_loaded(folder, monkeypatch):
    """PEFT would read it for the initial words of a trained prompt; its code would run where someone says yes."""
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    save(trained(gpt2(), prompt), folder / "lora")
    reading = Reading(base=folder / "gpt2")
    expected = load_whole(folder / "lora", "lora", reading)[0].state_dict()
    evil = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "lora/tokenizer_config.json").write_text(json.dumps(evil))
    (folder / "lora/evil.py").write_text(f"open({str(folder / 'RAN')!r}, 'w')\nclass Evil: ...\n")
    change(
        folder / "lora",
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="words",
        tokenizer_name_or_path=str(folder / "lora"),
        tokenizer_kwargs={"trust_remote_code": True},
    )
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    found = load_whole(folder / "lora", "lora", reading)[0].state_dict()
    assert not (folder / "RAN").exists()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], item) for name, item in expected.items())
