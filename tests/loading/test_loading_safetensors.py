"""safetensors: one file, shards under an index, kinds of numbers, and damage."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save, save_file

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints import Reading, identify, load_into
from hessdiag.results import CheckpointInfo

INDEX = "model.safetensors.index.json"


def read(path: Path) -> tuple[dict[str, torch.Tensor], CheckpointInfo]:
    model = tiny.network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model, info = load_into(model, path, path.name, Reading())
    return dict(model.state_dict()), info


def message(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"{path.name}: ")
    return str(caught.value)


def assert_arrived(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] | None = None) -> None:
    expected = expected or tiny.weights()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], item.float()) for name, item in expected.items())


def shards(folder: Path, ending: str = "safetensors") -> Path:
    """Two shards and their index; where it says another file, that is what is tested."""
    table = {}
    for number, prefix in enumerate(("0.", "2."), 1):
        name = f"model-0000{number}-of-00002.{ending}"
        content = {key: item for key, item in tiny.weights().items() if key.startswith(prefix)}
        (save_file if ending == "safetensors" else torch.save)(content, folder / name)
        table |= dict.fromkeys(content, name)
    return write_index(folder, table, ending)


def write_index(folder: Path, table: object, ending: str = "safetensors") -> Path:
    path = folder / (INDEX if ending == "safetensors" else "pytorch_model.bin.index.json")
    path.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": table}))
    return path


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_kinds_of_numbers(tmp_path, dtype):
    content = {name: item.to(dtype) for name, item in tiny.weights().items()}
    save_file(content, tmp_path / "w", {"format": "pt", "epoch": "3"})
    assert_arrived(read(tmp_path / "w")[0], content)


def test_tensors_without_elements_and_without_dimensions(tmp_path):
    content = {"none": torch.zeros(0, 3), "one": torch.tensor(2.0), "flag": torch.tensor([True]), "n": torch.arange(3)}
    save_file(content, tmp_path / "w")
    found = identify(tmp_path / "w").read(tmp_path / "w", Reading()).tensors
    assert all(torch.equal(found[name], item) for name, item in content.items())


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("named", ["folder", "index"])
def test_shards(tmp_path, ending, named):
    index = shards(tmp_path, ending)
    found, info = read(tmp_path if named == "folder" else index)
    assert_arrived(found)
    assert info.format == ("safetensors" if ending == "safetensors" else "state_dict")
    before = info.sha256
    second = next(tmp_path.glob(f"*-00002-of-*.{ending}"))
    content = {name: item + 1 for name, item in tiny.weights().items() if name.startswith("2.")}
    (save_file if ending == "safetensors" else torch.save)(content, second)
    assert read(index)[1].sha256 != before


def test_a_folder_with_one_file(tmp_path):
    save_file(tiny.weights(), tmp_path / "model.safetensors")
    torch.save(tiny.weights(), tmp_path / "pytorch_model.bin")
    found, info = read(tmp_path)
    assert_arrived(found)
    assert (info.format, info.sha256) == ("safetensors", read(tmp_path / "model.safetensors")[1].sha256)


PLACES = ["../{}", "/etc/{}", "a/../../{}", "C:\\{}", "..\\{}", "", "\0", "{}/.."]


@pytest.mark.parametrize("place", PLACES)
def test_shards_that_lie_elsewhere(tmp_path, place):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(tiny.weights(), tmp_path / "w.safetensors")
    write_index(folder, dict.fromkeys(tiny.weights(), place.format("w.safetensors")))
    assert "which is outside its folder" in message(folder)


def test_a_link_that_leaves_the_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(tiny.weights(), tmp_path / "w.safetensors")
    (folder / "shard.safetensors").symlink_to("../w.safetensors")
    write_index(folder, dict.fromkeys(tiny.weights(), "shard.safetensors"))
    assert "which is outside its folder" in message(folder)


def test_links_within_the_hubs_cache(tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    shards(snapshot)
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(f"../../blobs/{file.name}")
    assert_arrived(read(snapshot)[0])


INDICES = {
    "empty": (b"", f"{INDEX}: the file is empty (0 bytes)"),
    "no JSON": (b'{"weight_map": {', "is no JSON"),
    "a list": (b"[1]", "holds a list, expected a JSON object"),
    "no map": (b"{}", "expected weight_map, an object from tensors' names to files"),
    "an empty map": (b'{"weight_map": {}}', "expected weight_map"),
    "numbers": (b'{"weight_map": {"0.weight": 1}}', "expected weight_map"),
    "deep": (b'{"weight_map": ' + b"[" * 100_000, "is no JSON"),
}


@pytest.mark.parametrize("name", INDICES)
def test_a_damaged_index(tmp_path, name):
    content, words = INDICES[name]
    shards(tmp_path)
    (tmp_path / INDEX).write_bytes(content)
    assert words in message(tmp_path)


def test_shards_that_are_missing_or_of_another_save(tmp_path):
    shards(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"2.weight": torch.zeros(3, 5)}, second)
    assert "model-00002-of-00002.safetensors holds 2 tensors, of which it lacks 1 (first: 2.bias)" in message(tmp_path)
    second.unlink()
    assert "names 2 files, of which 1 is missing (first: model-00002-of-00002.safetensors)" in message(tmp_path)
    (tmp_path / INDEX).unlink()
    assert "but no index that says which tensor is where, expected model.safetensors.index.json" in message(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    shards(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-4])
    assert "model-00002-of-00002.safetensors: damaged safetensors file of" in message(tmp_path)
    second.write_bytes(b"")
    assert "model-00002-of-00002.safetensors: the file is empty (0 bytes)" in message(tmp_path)


# -- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2**62, 2**40, 10**8 + 1, 5000])
def test_a_header_longer_than_the_file(tmp_path, length):
    content = save(tiny.weights())
    (tmp_path / "w").write_bytes(struct.pack("<Q", length) + content[8:])
    assert f"it claims a header of {length} bytes" in message(tmp_path / "w")


def header(content: dict[str, object]) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


HEADERS = {
    "beyond the end": {"0.weight": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}},
    "another size": {"0.weight": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 64]}},
    "overflowing": {"0.weight": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]}},
    "backwards": {"0.weight": {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]}},
    "unknown kind": {"0.weight": {"dtype": "F3", "shape": [16], "data_offsets": [0, 64]}},
    "no offsets": {"0.weight": {"dtype": "F32", "shape": [16]}},
    "no tensors": {"0.weight": 3},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_does_not_fit_the_file(tmp_path, name):
    (tmp_path / "w").write_bytes(header(HEADERS[name]))
    assert "damaged safetensors file of" in message(tmp_path / "w")


QUANTISED = {
    "GPTQ": {"0.qweight": torch.int32, "0.qzeros": torch.int32, "0.scales": torch.float16, "0.g_idx": torch.int32},
    "AWQ or GPTQ": {"0.qweight": torch.int32, "0.qzeros": torch.int32, "0.scales": torch.float16},
    "bitsandbytes, 8 bits": {"0.weight": torch.int8, "0.SCB": torch.float32, "0.weight_format": torch.uint8},
    "bitsandbytes, 4 bits": {
        "0.weight": torch.uint8,
        "0.weight.absmax": torch.uint8,
        "0.weight.quant_map": torch.float,
    },
    "HQQ": {"0.W_q": torch.uint8, "0.scale": torch.float16},
    "compressed-tensors": {"0.weight_packed": torch.int32, "0.weight_scale": torch.float16},
    "scaled float8": {"0.weight": torch.float8_e4m3fn, "0.weight_scale_inv": torch.float32},
}


@pytest.mark.parametrize("form", ["safetensors", "torch"])
@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_weights_are_refused(tmp_path, method, form):
    content = {name: torch.ones(4).to(dtype) for name, dtype in QUANTISED[method].items()}
    (save_file if form == "safetensors" else torch.save)(content, tmp_path / "w")
    said = message(tmp_path / "w")
    assert f"refused: the weights are quantised ({method}" in said
    assert "take the unquantised checkpoint" in said


def test_a_weight_may_be_called_like_a_scale(tmp_path):
    model = torch.nn.ParameterDict({"weight_scale": torch.nn.Parameter(torch.ones(2))})
    save_file({"weight_scale": torch.zeros(2)}, tmp_path / "w")
    load_into(model, tmp_path / "w", "w", Reading())
    assert torch.equal(model["weight_scale"], torch.zeros(2))
