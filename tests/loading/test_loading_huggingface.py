"""Hugging Face model folders: built from their config, filled from their weights, and refused rather than guessed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_transformers import SIZES, assert_same, bert, bert_config, gpt2, live, load, message, quiet, save, write_evil

from hessdiag.errors import UsageError
from hessdiag.loading import Reading
from hessdiag.loading.extras import MissingExtraError
from hessdiag.loading.inspection import inspect

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'hessdiag[hf]'")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(bert(), folder / "bert")
    save(gpt2(), folder / "gpt2")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def change(folder: Path, **changed: object) -> None:
    """The config; None takes a key away."""
    content = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: item.clone() for name, item in load_file(folder / "model.safetensors").items()}


def put(folder: Path, content: dict[str, torch.Tensor]) -> None:
    save_file(content, folder / "model.safetensors", {"format": "pt"})


def test_bert_is_what_was_saved(folder, capfd):
    problem = load(folder, "bert")
    assert_same(problem, live(bert()))
    assert problem.checkpoint.format == "huggingface"
    assert not problem.model.training
    assert problem.model.config._attn_implementation == "eager"
    assert capfd.readouterr() == ("", "")


def test_gpt2_with_its_tied_head(folder):
    problem = load(folder, "gpt2", loss="causal_lm")
    assert problem.model.lm_head.weight is problem.model.transformer.wte.weight
    assert_same(problem, live(gpt2(), "causal_lm"))
    exact = problem.in_float64()
    assert exact.loss_value == pytest.approx(problem.loss_value, rel=1e-5)


def test_torchs_own_files_are_read_with_weights_only(folder):
    (folder / "bert/model.safetensors").unlink()
    torch.save(bert().state_dict(), folder / "bert/pytorch_model.bin")
    assert_same(load(folder, "bert"), live(bert()))


def test_safetensors_are_preferred(folder):
    write_evil(folder / "bert/pytorch_model.bin", folder / "RAN")
    assert_same(load(folder, "bert"), live(bert()))
    assert not (folder / "RAN").exists()


def test_shards(folder):
    save(bert(), folder / "sharded", max_shard_size="4KB")
    assert len(list((folder / "sharded").glob("model-*-of-*.safetensors"))) > 1
    assert_same(load(folder, "sharded"), live(bert()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32_unless_asked_otherwise(folder, dtype):
    save(bert().to(dtype), folder / "half")
    problem = load(folder, "half")
    assert problem.model_dtype is torch.float32
    assert_same(problem, live(bert().to(dtype).float()))
    assert load(folder, "half", dtype="bfloat16").model_dtype is torch.bfloat16


def test_float64_stays(folder):
    save(bert().double(), folder / "double")
    problem = load(folder, "double")
    assert problem.model_dtype is torch.float64
    assert_same(problem, live(bert().double()))


def test_the_digest_covers_config_and_weights(folder):
    before = load(folder, "bert").checkpoint.sha256
    assert load(folder, "bert").checkpoint.sha256 == before
    (folder / "bert/README.md").write_text("not weights")
    assert load(folder, "bert").checkpoint.sha256 == before
    change(folder / "bert", layer_norm_eps=1e-3)
    assert load(folder, "bert").checkpoint.sha256 != before


def test_a_network_of_the_specs_is_filled_from_the_folder(folder):
    (folder / "model.py").write_text(
        "def build():\n"
        "    from transformers import BertConfig, BertForSequenceClassification\n"
        f"    config = BertConfig(vocab_size=40, max_position_embeddings=12, num_labels=3, **{SIZES!r})\n"
        "    return BertForSequenceClassification._from_config(config, attn_implementation='eager')\n"
    )
    change(folder / "bert", auto_map={"AutoModel": "own.py--Own"}, architectures=["Own"])
    problem = load(folder, "bert", "class_path: model.py:build")
    assert_same(problem, live(bert()))


# -- never silently wrong ----------------------------------------------------------------------------------


def test_a_head_that_was_never_trained(folder):
    content = tensors(folder / "bert")
    put(folder / "bert", {name: item for name, item in content.items() if "classifier" not in name})
    said = message(folder, "bert")
    assert "the weights do not fit BertForSequenceClassification" in said
    assert "it lacks 2 of the model's 25 tensors (first: classifier.bias (3,), classifier.weight (3, 16))" in said
    assert "transformers would fill it with random numbers" in said


def test_another_number_of_labels(folder):
    change(folder / "bert", id2label={str(i): str(i) for i in range(5)}, label2id={str(i): i for i in range(5)})
    said = message(folder, "bert")
    assert "2 tensors have another shape (first: classifier.bias is (3,), the model expects (5,))" in said


def test_tensors_without_a_place(folder):
    put(folder / "bert", {**tensors(folder / "bert"), "bert.encoder.layer.1.more": torch.zeros(2)})
    assert "it has 1 tensor that the model lacks (first: bert.encoder.layer.1.more)" in message(folder, "bert")


def test_old_position_ids_are_no_surprise(folder):
    put(folder / "bert", {**tensors(folder / "bert"), "bert.embeddings.position_ids": torch.arange(12)[None]})
    assert_same(load(folder, "bert"), live(bert()))


CONFIGS = {
    "remote code": (
        {"auto_map": {"AutoModelForSequenceClassification": "evil.py--Evil"}},
        ["refused", "auto_map", "class_path"],
    ),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["refused", "quantised (gptq)", "unquant"]),
    "bitsandbytes": (
        {"quantization_config": {"load_in_8bit": True, "quant_method": "bitsandbytes"}},
        ["quantised (bitsandbytes)"],
    ),
    "no architecture": ({"architectures": None}, ["names no architecture", "model.class_path"]),
    "timm": ({"architectures": None, "architecture": "resnet18"}, ["class_path: timm.create_model", "resnet18"]),
    "unknown": ({"architectures": ["OwnForEverything"]}, ["'OwnForEverything', which transformers", "class_path"]),
    "no model": ({"architectures": ["pipeline"]}, ["'pipeline', which transformers"]),
    "of another type": ({"architectures": ["GPT2LMHeadModel"]}, ["does not go with its model_type 'bert'"]),
    "unknown type": ({"model_type": "nothing"}, ["transformers cannot read config.json"]),
    "many layers": ({"num_hidden_layers": 5000}, ["5000 layers, but the weights have 25 tensors"]),
    "very many": ({"num_labels": 10**9}, ["found num_labels: 1000000000"]),
    "huge": ({"vocab_size": 10**12}, ["a network of 64,0", "not of one model"]),
    "no sense": ({"hidden_size": "sixteen"}, ["config.json"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(folder, name):
    changed, words = CONFIGS[name]
    (folder / "bert/evil.py").write_text(f"open({str(folder / 'RAN')!r}, 'w')\nclass Evil: pass\n")
    change(folder / "bert", **changed)
    said = message(folder, "bert")
    assert [word for word in words if word not in said] == [], said
    assert not (folder / "RAN").exists()


def test_another_head_beside_is_left_out_as_in_berts_own_folder(folder):
    more = {"bert.pooler_of_old.dense.weight": torch.ones(2, 2), "cls.seq_relationship.bias": torch.ones(2)}
    put(folder / "bert", {**tensors(folder / "bert"), **more})
    assert_same(load(folder, "bert"), live(bert()))


@pytest.mark.parametrize("name", ["bert.encoder.layer.9.output.dense.bias", "classifier.scale", "more"])
def test_a_part_of_the_network_is_not_left_out(folder, name):
    put(folder / "bert", {**tensors(folder / "bert"), name: torch.ones(2)})
    assert f"it has 1 tensor that the model lacks (first: {name})" in message(folder, "bert")


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("kind", ["flash_attention_2", "somebody/kernel"])
def test_attention_that_the_config_names_is_neither_taken_nor_downloaded(folder, name, kind):
    change(folder / "bert", **{name: kind})
    problem = load(folder, "bert")
    assert_same(problem, live(bert()))
    assert problem.model.config._attn_implementation == "eager"


def test_nothing_is_downloaded_that_a_config_names(folder, monkeypatch):
    def looked_up(*names: object, **options: object) -> None:
        raise AssertionError(names)

    monkeypatch.setattr("socket.getaddrinfo", looked_up)
    change(folder / "bert", model_type="detr", architectures=["DetrForObjectDetection"], backbone="somebody/net")
    change(folder / "bert", use_timm_backbone=False)
    assert "transformers cannot read config.json (OfflineModeIsEnabled" in message(folder, "bert")


def test_a_tokenizer_of_its_own_is_no_code_for_the_model(folder):
    change(folder / "bert", auto_map={"AutoTokenizer": ["own.py--Own", None]})
    assert_same(load(folder, "bert"), live(bert()))


@pytest.mark.parametrize("depth", [900, 950, 975, 990])
def test_a_config_nested_without_end(folder, depth):
    change(folder / "bert", nested=0)
    path = folder / "bert/config.json"
    path.write_text(path.read_text().replace('"nested": 0', '"nested": ' + '{"a": ' * depth + "0" + "}" * depth))
    assert "config.json" in message(folder, "bert")


def test_a_link_to_nothing(folder):
    (folder / "bert/model.safetensors").unlink()
    (folder / "bert/model.safetensors").symlink_to("nowhere")
    assert "model.safetensors is no file but a folder, or a link to nothing" in message(folder, "bert")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_config(folder, content):
    (folder / "bert/config.json").write_bytes(content)
    assert "config.json" in message(folder, "bert")


def test_folders_without_weights_for_torch(folder):
    (folder / "bert/model.safetensors").unlink()
    assert "it holds no weights (but config.json), expected model.safetensors" in message(folder, "bert")
    (folder / "bert/model-00001-of-00002.safetensors").write_bytes(b"")
    assert "but no index" in message(folder, "bert")
    (folder / "bert/model-00001-of-00002.safetensors").rename(folder / "bert/flax_model.msgpack")
    assert "weights for Flax: load them with transformers 4" in message(folder, "bert")
    (folder / "bert/flax_model.msgpack").rename(folder / "bert/tf_model.h5")
    assert "weights for TensorFlow: load them with transformers 4" in message(folder, "bert")


def test_quantised_tensors(folder):
    content = tensors(folder / "bert")
    weight = content.pop("classifier.weight")
    put(folder / "bert", {**content, "classifier.weight": weight.to(torch.int8), "classifier.SCB": torch.ones(3)})
    assert "quantised (bitsandbytes, 8 bits: 1 tensor such as classifier.SCB)" in message(folder, "bert")


def test_transformers_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hessdiag\[hf\]'") as caught:
        load(folder, "bert")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_what_the_trainer_leaves_beside_is_not_read(folder, name):
    write_evil(folder / f"bert/{name}", folder / "RAN")
    load(folder, "bert")
    assert not (folder / "RAN").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_nothing_in_the_weights_runs(folder, name):
    (folder / "bert/model.safetensors").unlink()
    write_evil(folder / "bert" / name, folder / "RAN")
    if "-of-" in name:
        index = {"metadata": {}, "weight_map": dict.fromkeys(bert().state_dict(), name)}
        (folder / "bert/pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert "refused" in message(folder, "bert")
    assert not (folder / "RAN").exists()


def test_a_single_weights_file_needs_a_class_path(folder):
    with pytest.raises(UsageError, match="class_path"):
        load(folder, "bert/model.safetensors")


def test_an_encoder_alone_fits_its_own_architecture_alone(folder):
    from transformers import BertModel

    with quiet():
        save(BertModel(bert_config()), folder / "encoder")
    change(folder / "encoder", architectures=["BertForSequenceClassification"])
    assert "it lacks 2 of the model's 25 tensors (first: classifier.bias" in message(folder, "encoder")


def test_inspect_tells_what_the_config_calls_quantised(folder):
    assert inspect(folder / "bert", "bert", Reading()).refusal is None
    change(folder / "bert", quantization_config={"quant_method": "gptq"})
    refusal = inspect(folder / "bert", "bert", Reading()).refusal
    assert refusal is not None
    assert refusal.reason.startswith("refused: the weights are quantised (gptq)")


@pytest.mark.parametrize("part", ["AutoConfig", "PreTrainedModel", "BertForSequenceClassification"])
def test_a_torchvision_that_takes_transformers_down(folder, monkeypatch, part):
    """Transformers imports its parts when they are asked for, and each may fail then."""
    import transformers

    lazy = type(transformers).__getattr__

    def fail(module, name):
        if name == part:
            raise ModuleNotFoundError(f"Could not import module {name!r}.") from RuntimeError(
                "operator torchvision::nms does not exist"
            )
        return lazy(module, name)

    monkeypatch.delitem(vars(transformers), part, raising=False)
    monkeypatch.setattr(type(transformers), "__getattr__", fail)
    with pytest.raises(MissingExtraError) as caught:
        load(folder, "bert")
    assert str(caught.value).startswith("a Hugging Face model: the installed torchvision cannot be imported")
    assert caught.value.exit_code == 3
