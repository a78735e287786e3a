"""Checkpoints that are damaged, refused, of other programs, or of another model."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tiny
import torch
from error_cases import of_checkpoint, provoke
from safetensors.torch import save_file
from torch import nn

OPTIMIZER = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1, 2, 3]}]}
INSPECT = ("inspect", "saved")
W = tiny.weights


class Runs:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch RAN",)


class Nested:
    """Unpickled, tuples of tuples."""


def saved(content: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, **options)


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def legacy(content: Any) -> Callable[[Path], None]:
    return saved(content, _use_new_zipfile_serialization=False)


def cut(save: Callable[[Path], Any], keep: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save(path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def rezipped(change: Callable[[dict[str, bytes]], Any], content: Any = None, **options: Any) -> Callable[[Path], None]:
    """The records of a state dict's archive, changed and closed again."""

    def write(path: Path) -> None:
        torch.save(W() if content is None else content, path)
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        found = change(records) or list(records.items())
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as archive:
            warnings.simplefilter("ignore")  # of several records of one name
            for name, part in found:
                archive.writestr(name, part)

    return write


def flipped(path: Path) -> None:
    torch.save(W(), path)
    content = bytearray(path.read_bytes())
    content[content.index(W()["0.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(content)


def folder(**files: Any) -> Callable[[Path], None]:
    """Files by name (``__`` for the dot): bytes, objects for JSON, or functions that write them."""

    def write(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            file = path / name.replace("__", ".")
            if callable(content):
                content(file)
            else:
                file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    return write


def tensors(content: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file(content, path)


def header(content: dict[str, Any], data: int = 0) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


# -- damage ------------------------------------------------------------------------------------------------

of_checkpoint("an empty file", raw(b""))
of_checkpoint("a Git LFS pointer", raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"))
of_checkpoint("bytes of no format", raw(bytes(range(128, 256)) * 4))
of_checkpoint("a folder that is no checkpoint", folder(notes__bin1=b"x", readme__md=b"y"))
of_checkpoint("an empty folder", folder())
of_checkpoint("safetensors cut in its header", cut(tensors(W()), 40))
of_checkpoint("safetensors cut in its tensors", cut(tensors(W()), 350), varying=r"(?<=bytes \().*(?=\): it was)")
of_checkpoint("safetensors with --weights ema", tensors(W()), "--weights", "ema")
of_checkpoint("a torch file cut short", cut(saved(W()), 900))
of_checkpoint("a torch file of before 1.6 cut short", cut(legacy(W()), 300), varying=r"(?<=garbled \().*(?=\): copy)")
of_checkpoint(
    "a torch file of before 1.6 cut in its tensors", cut(legacy(W()), -20), varying=r"(?<=bytes \().*(?=\): it was)"
)
of_checkpoint("a bit flipped in a tensor", flipped)
of_checkpoint("a record that is missing", rezipped(lambda r: r.pop("saved/data/0") and None))
of_checkpoint("a record that is shorter than its tensor", rezipped(lambda r: r.update({"saved/data/0": b"12"})))
of_checkpoint(
    "a torch file whose pickle is garbled",
    rezipped(lambda r: r.update({"saved/data.pkl": b"\x80\x02}q\x00(X"})),
    varying=r"(?<=garbled \().*(?=\): copy)",
)
of_checkpoint("a pickle that pops more than it has", rezipped(lambda r: r.update({"saved/data.pkl": b"\x80\x020000."})))
of_checkpoint("a zip archive of something else", lambda path: zipfile.ZipFile(path, "w").writestr("notes.txt", "x"))
of_checkpoint(
    "a zip archive with a checkpoint in it", lambda path: zipfile.ZipFile(path, "w").writestr("best/model.pt", "x")
)
of_checkpoint("several records of one name", rezipped(lambda r: [*r.items(), ("saved/data.pkl", r["saved/data.pkl"])]))
of_checkpoint(
    "records that inflate",
    rezipped(lambda r: r.update({"saved/more": bytes(1 << 24)}), compression=zipfile.ZIP_DEFLATED),
)
of_checkpoint("records that are compressed otherwise", rezipped(lambda r: None, compression=zipfile.ZIP_LZMA))

# -- programs ----------------------------------------------------------------------------------------------

of_checkpoint("a payload", saved({**W(), "evil": Runs()}))
of_checkpoint("a payload, inspected", raw(b"\x80\x02}."), command=INSPECT)
of_checkpoint("a bare pickle with a payload", raw(pickle.dumps(Runs())))
of_checkpoint("a whole pickled module", saved(tiny.network()))
of_checkpoint("a state dict with objects of other packages", saved({"model": W(), "args": Namespace(lr=0.1)}))
of_checkpoint(
    "a state dict with many other objects",
    saved(
        {
            "model": W(),
            "a": Namespace(),
            "b": SimpleNamespace(),
            "c": Path("x"),
            "d": np.random.RandomState(0),
            "e": ValueError(),
            "f": io.BytesIO(),
        }
    ),
)
of_checkpoint("a bare pickle that torch.save did not write", raw(pickle.dumps({"lr": 0.1}, 2)))
of_checkpoint("a bare pickle of arrays", raw(pickle.dumps({"model": {"0.weight": np.zeros(2)}}, 2)))
of_checkpoint("a bare pickle of tensors", raw(pickle.dumps(W(), 2)))
of_checkpoint("a network that the script that saved it defined", lambda path: of_a_script(path))
of_checkpoint(
    "a network that the script that saved it defined, trusted", lambda path: of_a_script(path), "--trust-checkpoint"
)
of_checkpoint("a pickle of a later protocol", saved(W(), pickle_protocol=4))
of_checkpoint("a torch.distributed folder", folder(__metadata=b"x", __0_0__distcp=b"x"))
of_checkpoint("a torch.distributed folder with a payload", folder(__metadata=pickle.dumps(Runs())))
of_checkpoint(
    "a torch.distributed folder that is damaged",
    folder(__metadata=b"x"),
    "--trust-checkpoint",
)
of_checkpoint("a TorchScript archive", lambda path: script(path))
of_checkpoint(
    "a TorchScript archive, cut short",
    rezipped(lambda r: r.update({"saved/constants.pkl": b"", "saved/code/x.py": b""})),
    "--trust-checkpoint",
    varying=r"(?<=this torch \().*(?=\): save)",
)
of_checkpoint(
    "a TorchScript archive and --weights ema", lambda path: script(path), "--trust-checkpoint", "--weights", "ema"
)
of_checkpoint(
    "a TorchScript archive without a factory", lambda path: script(path), "--trust-checkpoint", class_path=None
)
of_checkpoint("a torch.export program", lambda path: exported(path))
of_checkpoint(
    "a torch.export program in training mode",
    lambda path: exported(path, training=True),
    "--trust-checkpoint",
    class_path=None,
)
of_checkpoint("a whole pickled module whose code is not there", lambda path: unknown_code(path), "--trust-checkpoint")
of_checkpoint("weights alone without a factory", saved(W()), class_path=None)


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated
        torch.jit.save(torch.jit.trace(tiny.network(), torch.ones(1, 4)), str(path))


def exported(path: Path, training: bool = False) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    program = torch.export.export(model.train(training), (torch.ones(2, 4),))
    torch.export.save(program, path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def unknown_code(path: Path, module: bytes = b"nets_of_mine") -> None:
    rezipped(lambda r: r.update({"saved/data.pkl": b"\x80\x02c%b\nNet\n)\x81." % module}))(path)


def of_a_script(path: Path) -> None:
    unknown_code(path, b"__main__")


for title, name in {
    "of a module that torch blocks": "os.system",
    "of the script that saved it": "__main__.Net",
    "of a package that is not there": "no_such_package.Net",
    "of a name that is not there": "collections.NoSuchName",
    "that is one word": "Net",
}.items():
    of_checkpoint(f"--allow-global {title}", saved(W()), "--allow-global", name)


# -- contents ----------------------------------------------------------------------------------------------

A, B = W(), {name: item + 1 for name, item in W().items()}
of_checkpoint("a list", saved([torch.ones(3)]))
of_checkpoint("an empty dict", saved({}))
of_checkpoint("no tensors", saved({"epoch": 3, "lr": 0.1}))
of_checkpoint("an optimizer alone", saved({"optimizer": OPTIMIZER}))
of_checkpoint("two sets of weights", saved({"generator": A, "discriminator": B}))
of_checkpoint("a moving average alone", saved({"ema_state_dict": A}))
of_checkpoint("no moving average", saved({"model": A}), "--weights", "ema")
of_checkpoint(
    "several moving averages",
    saved({f"{part}.{name}": item for part in ("ema_1", "ema_2", "net") for name, item in A.items()}),
    "--weights",
    "ema",
)
of_checkpoint("tensors without data", saved({name: item.to("meta") for name, item in A.items()}))
of_checkpoint(
    "two networks in one state dict",
    saved({f"{part}.{name}": item for part in ("student", "teacher") for name, item in A.items()}),
)

# -- another model -----------------------------------------------------------------------------------------

of_checkpoint("another size", saved(tiny.weights(7)), family="misfits")
of_checkpoint(
    "another number of classes", saved({**A, "2.weight": torch.zeros(7, 5), "2.bias": torch.zeros(7)}), family="misfits"
)
of_checkpoint("a part of the model", saved({"0.bias": torch.zeros(5)}), family="misfits")
of_checkpoint("more than the model", saved({**A, "4.weight": torch.zeros(2)}), family="misfits")
of_checkpoint("other names", saved({name.replace("0.", "first."): item for name, item in A.items()}), family="misfits")
of_checkpoint(
    "a prefix of which some names are the model's",
    saved({f"encoder.{name}": item for name, item in A.items() if name != "2.bias"}),
    family="misfits",
)
of_checkpoint(
    "an inner network",
    saved({name.removeprefix("inner."): item for name, item in A.items() if name != "2.bias"}),
    family="misfits",
    class_path="model.py:outer",
)
of_checkpoint(
    "two values for one tensor",
    saved({"0.weight": torch.ones(4, 4), "1.weight": torch.zeros(4, 4)}),
    family="misfits",
    class_path="model.py:tied",
)
of_checkpoint(
    "names with a prefix and without",
    saved({**{f"model.{name}": item for name, item in A.items()}, "0.weight": torch.zeros(5, 4)}),
    family="misfits",
)
of_checkpoint(
    "lazy layers that were never filled",
    saved({**A, "0.weight": nn.parameter.UninitializedParameter()}),
    *("--allow-global", "torch.nn.parameter.UninitializedParameter"),
    family="misfits",
)
of_checkpoint("whole numbers", saved({name: item.long() for name, item in A.items()}), family="misfits")
of_checkpoint(
    "an adapter's tensors",
    saved({"0.lora_A.weight": torch.zeros(2, 4), "0.lora_B.weight": torch.zeros(5, 2)}),
    family="misfits",
)
of_checkpoint("an optimizer's tensors", saved({f"{name}.exp_avg": item for name, item in A.items()}), family="misfits")
Q = torch.zeros(5, 4, dtype=torch.int8)
of_checkpoint("bitsandbytes", tensors({"0.weight": Q, "0.SCB": torch.ones(5)}), family="misfits")
of_checkpoint(
    "bitsandbytes of 4 bits",
    tensors({"0.weight": Q.to(torch.uint8), "0.weight.absmax": torch.ones(5)}),
    family="misfits",
)
of_checkpoint(
    "GPTQ", tensors({"0.qweight": Q.to(torch.int32), "0.g_idx": torch.ones(5, dtype=torch.int32)}), family="misfits"
)
of_checkpoint(
    "dynamically quantised",
    saved({"0.scale": torch.ones(()), "0._packed_params._packed_params": (torch.ones(5, 4), None)}),
    family="misfits",
)
of_checkpoint("scaled int8", tensors({"0.weight": Q, "0.weight_scale": torch.ones(5)}), family="misfits")

# -- folders -----------------------------------------------------------------------------------------------

NAMES = dict.fromkeys(A, "model-00001-of-00002.safetensors")
PART = tensors(A)


def index(**changed: Any) -> dict[str, Any]:
    return {"metadata": {}, "weight_map": NAMES, **changed}


INDEX, SHARD = "model__safetensors__index__json", "model-00001-of-00002__safetensors"
SHARDED: dict[str, dict[str, Any]] = {
    "shards without their index": {SHARD: PART},
    "an index that is no JSON": {INDEX: b"{", SHARD: PART},
    "an index that is a list": {INDEX: b"[1]", SHARD: PART},
    "an index without a table": {INDEX: {"metadata": {}}, SHARD: PART},
    "an index whose shards are missing": {INDEX: index()},
    "an index that leads outside": {INDEX: index(weight_map={"0.weight": "../data.npz"}), SHARD: PART},
    "an index of another save": {INDEX: index(), SHARD: tensors({"other": torch.ones(1)})},
    "a shard that is damaged": {INDEX: index(), SHARD: cut(PART, 40)},
    "a shard that is empty": {INDEX: index(), SHARD: b""},
    "two models of Accelerate": {
        "model__safetensors": PART,
        "model_1__safetensors": PART,
        "random_states_0__pkl": b"x",
    },
    "Accelerate without weights": {"random_states_0__pkl": b"x", "notes__txt": b"x"},
    "Accelerate with other programs' weights": {"random_states_0__pkl": b"x", "model__onnx": b"x"},
}
for title, files in SHARDED.items():
    of_checkpoint(title, folder(**files), family="folders")
of_checkpoint(
    "an index that is too large",
    folder(**{INDEX: lambda file: file.write_bytes(b"{" + b" " * (2**26))}),
    family="folders",
)
for suffix in ("gguf", "h5", "msgpack"):
    of_checkpoint(
        f"Accelerate with weights in .{suffix}",
        folder(random_states_0__pkl=b"x", **{f"model__{suffix}": b"x"}),
        family="folders",
    )

# -- other programs ----------------------------------------------------------------------------------------


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))


def protobuf(*numbers: int) -> bytes:
    """A message with these fields, the first a number, the others empty texts."""
    first, *rest = numbers
    key = lambda number: bytes([number << 3 | 2]) if number < 16 else bytes([number << 3 & 0x7F | 0x82, number >> 4])  # noqa: E731
    return bytes([first << 3]) + b"\x08" + b"".join(key(number) + b"\0" for number in rest)


def archive(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"x")

    return write


OTHERS: dict[str, Any] = {
    "GGUF": raw(b"GGUF\3\0\0\0" + bytes(64)),
    "ExecuTorch": raw(b"\x1c\0\0\0ET12" + bytes(64)),
    "TensorFlow Lite": raw(b"\x1c\0\0\0TFL3" + bytes(64)),
    "PyTorch Mobile": raw(b"\x1c\0\0\0PTMF" + bytes(64)),
    "ONNX": raw(protobuf(1, 2, 7, 8)),
    "Core ML": raw(protobuf(1, 2, 500)),
    "a Core ML package": folder(Manifest__json=b"{}", Data=lambda file: file.mkdir()),
    "a TensorFlow SavedModel": folder(saved_model__pb=b"x"),
    "a TensorFlow SavedModel's file": raw(protobuf(1, 2)),
    "a TensorFlow checkpoint": folder(**{"ckpt__data-00000-of-00001": b"x", "ckpt__index": b"x"}),
    "Keras": archive("model.weights.h5", "config.json"),
    "HDF5": raw(b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "NumPy": archive("w.npy"),
    "scikit-learn": raw(b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x0fsklearn.tree\x94" + bytes(64)),
    "Flax": raw(b"\x81\xa6params\x81\xa1w\xc0" + bytes(64)),
    "Orbax": folder(_CHECKPOINT_METADATA=b"{}"),
    "a tar archive": tar,
    "a compressed file": raw(b"\x1f\x8b\x08" + bytes(64)),
    "a web page": raw(b"<!DOCTYPE html><html><body>404</body></html>"),
    "a text": raw(b"Repository not found\nsee the hub\n"),
    "a JSON file": raw(b'{"lr": 0.1}'),
}
for title, save in OTHERS.items():
    of_checkpoint(title, save, family="other-programs")
of_checkpoint("a text, inspected", OTHERS["a text"], command=INSPECT, family="other-programs")
provoke("checkpoints", "inspect of nothing", lambda folder: ("inspect", "none.pt"))
provoke(
    "checkpoints",
    "inspect of what is neither file nor folder",
    lambda folder: (os.mkfifo(folder / "pipe"), ("inspect", "pipe"))[1],
)


# -- what takes some work to make --------------------------------------------------------------------------


def overlapping(path: Path) -> None:
    """A record that says it takes more than the file."""
    torch.save(W(), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 20, 10**9)
    path.write_bytes(content)


def longer_storage(path: Path) -> None:
    """A file of before torch 1.6 whose first storage says that it has two billion numbers."""
    legacy(W())(path)
    changed = re.sub(
        rb"(cpuq.)K\x14", lambda found: found[1] + b"J\xff\xff\xff\x7f", path.read_bytes(), flags=re.DOTALL
    )
    path.write_bytes(changed)


nested_tuples = b"\x80\x02" + b")" + b"\x85" * 3000 + b"."
of_checkpoint("bytes that are nothing", raw(b"\xc0\xc1" * 50))
of_checkpoint("a folder with a pipe in it", folder(model__safetensors=PART, pipe=os.mkfifo), family="folders")
of_checkpoint(
    "a folder in the place of the weights",
    folder(config__json=b"{}", model__safetensors=lambda file: file.mkdir()),
    family="folders",
)
of_checkpoint("records that lie over each other", overlapping, varying=r"(?<=take )\d+(?= bytes)")
of_checkpoint("tuples of tuples", rezipped(lambda r: r.update({"saved/data.pkl": nested_tuples})))
of_checkpoint("a storage that is too long", longer_storage)
of_checkpoint(
    "--allow-global of what fails on import",
    saved(W()),
    "--allow-global",
    "asyncio.windows_events.X",
    varying=r"(?<=imported \().*(?=\))",
)
of_checkpoint(
    "--allow-global of what needs something else",
    saved(W()),
    "--allow-global",
    "multiprocessing.popen_spawn_win32.X",
    varying=r"(?<=imported \().*(?=\))",
)
