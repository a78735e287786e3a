"""Data of every format."""

from __future__ import annotations

import csv as tables
import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import tiny
import torch
from fuzz_seeds import recipe, write_spec
from safetensors.torch import save_file

NETWORK = """\
from torch import nn


def build(channels=1, hidden=3):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 10))
"""
GRAPHS = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(2)
        self.head.initialize_parameters(torch.ones(1, 3))

    def forward(self, batch):
        x = batch.x[:, :1].expand(-1, 3)
        out = x.new_zeros(int(batch.num_graphs), 3).index_add(0, batch.batch, x)
        return self.head(out)
"""
MODEL = "class_path: model.py:build"
ARRAYS = "inputs: x, targets: y"


def write_tiny(folder: Path, data: str, model: str = MODEL, loss: str = "cross_entropy") -> None:
    (folder / "model.py").write_text(tiny.MODEL)
    write_spec(folder, model, data, loss)


def write_images(folder: Path, data: str, channels: int) -> None:
    (folder / "model.py").write_text(NETWORK)
    write_spec(folder, f"{MODEL}, init_args: {{channels: {channels}}}", data)


@recipe("data")
def npz(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, f"format: npz, path: data.npz, {ARRAYS}")
    np.savez(folder / "data.npz", **tiny.arrays())
    return ("data.npz",)


@recipe("data")
def npz_compressed(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, f"format: npz, path: data.npz, {ARRAYS}")
    np.savez_compressed(folder / "data.npz", **tiny.arrays())
    return ("data.npz",)


@recipe("data")
def npy_folder(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, f"format: npz, path: data, {ARRAYS}")
    (folder / "data").mkdir()
    for name, array in tiny.arrays().items():
        np.save(folder / "data" / f"{name}.npy", array)
    return ("data/",)


@recipe("data")
def safetensors(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, f"format: safetensors, path: data.safetensors, {ARRAYS}")
    save_file({name: torch.from_numpy(array) for name, array in tiny.arrays().items()}, folder / "data.safetensors")
    return ("data.safetensors",)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def digits() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (12, 5, 4)), random.integers(0, 10, 12)


@recipe("data")
def idx(folder: Path) -> tuple[str, ...]:
    write_images(folder, "format: idx, split: test, path: data", 1)
    (folder / "data").mkdir()
    images, labels = digits()
    (folder / "data" / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / "data" / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return ("data/",)


@recipe("data")
def idx_gz(folder: Path) -> tuple[str, ...]:
    write_images(folder, "format: idx, split: test, path: data, mean: [0.1307], std: [0.3081]", 1)
    (folder / "data").mkdir()
    images, labels = digits()
    (folder / "data" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), mtime=0))
    (folder / "data" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels), mtime=0))
    return ("data/",)


def pixels() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (4, 3072), dtype=np.uint8), random.integers(0, 10, 4).astype(np.uint8)


@recipe("data")
def cifar_binary(folder: Path) -> tuple[str, ...]:
    write_images(folder, "format: cifar, path: data", 3)
    (folder / "data").mkdir()
    images, labels = pixels()
    (folder / "data" / "test_batch.bin").write_bytes(np.concatenate([labels[:, None], images], 1).tobytes())
    (folder / "data" / "batches.meta.txt").write_text("airplane\n")
    return ("data/",)


def python_batch() -> bytes:
    """As CIFAR's makers wrote it, by Python 2: keys are bytes."""
    images, labels = pixels()
    batch = {
        b"batch_label": b"testing batch 1 of 1",
        b"labels": labels.tolist(),
        b"data": images,
        b"filenames": [b"a.png"] * 4,
    }
    return pickle.dumps(batch, protocol=2)


@recipe("data")
def cifar_python(folder: Path) -> tuple[str, ...]:
    write_images(folder, "format: cifar, path: data", 3)
    (folder / "data").mkdir()
    (folder / "data" / "test_batch").write_bytes(python_batch())
    return ("data/",)


@recipe("data")
def cifar_archive(folder: Path) -> tuple[str, ...]:
    write_images(folder, "format: cifar, path: cifar-10-python.tar.gz", 3)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in {
            "batches.meta": pickle.dumps({b"label_names": []}, 2),
            "test_batch": python_batch(),
        }.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (folder / "cifar-10-python.tar.gz").write_bytes(gzip.compress(raw.getvalue(), mtime=0))
    return ("cifar-10-python.tar.gz",)


def rows() -> list[dict[str, object]]:
    x, y = tiny.arrays().values()
    names = ("f1", "f2", "f3", "f4")
    return [
        {**dict(zip(names, map(float, row), strict=True)), "y": int(label)} for row, label in zip(x, y, strict=True)
    ]


@recipe("data")
def csv(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, "format: csv, path: data.csv, inputs: [f1, f2, f3, f4], targets: y")
    with (folder / "data.csv").open("w", newline="") as file:
        writer = tables.DictWriter(file, list(rows()[0]))
        writer.writeheader()
        writer.writerows(rows())
    return ("data.csv",)


@recipe("data")
def csv_words(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, 'format: csv, path: data.csv, targets: y, classes: [a, "b,c", d], delimiter: ";"')
    lines = ["f1;f2;f3;f4;y", *(f'{i / 7};{i};-{i}e-3;"{i % 3}";{("a", "b,c", "d")[i % 3]}' for i in range(20))]
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return ("data.csv",)


@recipe("data", needs=("pyarrow",), modules=("pyarrow.parquet",))
def parquet(folder: Path) -> tuple[str, ...]:
    import pyarrow
    import pyarrow.parquet

    write_tiny(folder, "format: parquet, path: data.parquet, inputs: [f1, f2, f3, f4], targets: y")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows()), folder / "data.parquet", row_group_size=12)
    return ("data.parquet",)


@recipe("data", needs=("pyarrow",), modules=("pyarrow.parquet",))
def parquet_lists(folder: Path) -> tuple[str, ...]:
    import pyarrow
    import pyarrow.parquet

    write_tiny(folder, "format: parquet, path: data, inputs: x, targets: y")
    x, y = tiny.arrays().values()
    table = pyarrow.table({"x": [row.tolist() for row in x], "y": y})
    (folder / "data").mkdir()
    for part in range(2):
        pyarrow.parquet.write_table(
            table.slice(15 * part, 15), folder / "data" / f"part-{part}.parquet", compression="zstd"
        )
    return ("data/",)


@recipe("data")
def jsonl(folder: Path) -> tuple[str, ...]:
    write_tiny(folder, "format: jsonl, path: data.jsonl, inputs: x, targets: y")
    x, y = tiny.arrays().values()
    lines = [
        json.dumps({"x": row.tolist(), "y": int(label), "id": f"n{label}"}) for row, label in zip(x, y, strict=True)
    ]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return ("data.jsonl",)


TEXTS = ("a cat sat", "the dog ran", "no dog", "the cat ran far")


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *" ".join(TEXTS).split()])}
    words = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def write_texts(folder: Path, data: str) -> None:
    """The spec of a BERT that is built anew, of random weights, and its tokenizer."""
    write_tokenizer(folder / "words")
    (folder / "model.py").write_text("""\
from transformers import BertConfig, BertForSequenceClassification


def build():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=30, max_position_embeddings=16, num_labels=2, **sizes)
    return BertForSequenceClassification._from_config(config, attn_implementation="eager")
""")
    write_spec(folder, MODEL, f"{data}, tokenizer: words, max_length: 12")


TRANSFORMERS = ("transformers.models.bert.modeling_bert", "transformers.models.auto.tokenization_auto")


@recipe("data", needs=("transformers", "tokenizers"), modules=TRANSFORMERS)
def jsonl_texts(folder: Path) -> tuple[str, ...]:
    """Sentence pairs; the tokenizer is changed, too."""
    write_texts(folder, "format: jsonl, path: data.jsonl, inputs: [one, two], targets: same")
    lines = [json.dumps({"one": one, "two": two, "same": int(one == two)}) for one in TEXTS for two in TEXTS]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return ("data.jsonl", "words/")


@recipe("data", needs=("transformers", "datasets"), modules=(*TRANSFORMERS, "datasets"))
def hf_saved(folder: Path) -> tuple[str, ...]:
    """What ``save_to_disk`` wrote, in splits."""
    import datasets

    datasets.disable_progress_bars()
    write_texts(folder, "format: hf, path: data, split: validation, inputs: text, targets: label")
    columns = {"text": list(TEXTS), "label": [0, 1, 0, 1]}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    split = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"validation": split, "train": split}).save_to_disk(folder / "data")
    return ("data/",)


@recipe("data", needs=("datasets", "pyarrow"), modules=("datasets", "pyarrow.parquet"))
def hf_files(folder: Path) -> tuple[str, ...]:
    """Files as they are in the repositories of datasets."""
    import pyarrow
    import pyarrow.parquet

    write_tiny(folder, "format: hf, path: data, split: train, inputs: x, targets: y")
    x, y = tiny.arrays().values()
    (folder / "data").mkdir()
    table = pyarrow.table({"x": [row.tolist() for row in x], "y": y})
    pyarrow.parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
    return ("data/",)


@recipe("data", needs=("PIL",), modules=("PIL.Image", "PIL.PngImagePlugin", "PIL.JpegImagePlugin"))
def imagefolder(folder: Path) -> tuple[str, ...]:
    from PIL import Image

    write_images(
        folder,
        "format: imagefolder, path: data, split: val, transform: {resize: 9, crop: 8, mean: [0.5, 0.4, 0.3], std: [1]}",
        3,
    )
    random = np.random.default_rng(0)
    for name, mode in (
        ("cat/a.png", "RGB"),
        ("cat/b.jpg", "L"),
        ("dog/c.png", "P"),
        ("dog/d.gif", "P"),
        ("dog/e.webp", "RGBA"),
    ):
        path = folder / "data" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (10, 12, {"RGB": 3, "RGBA": 4}.get(mode, 1))
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8).squeeze()).convert(mode).save(path)
    return ("data/",)


@recipe("data", needs=("torch_geometric",), modules=("torch_geometric.data", "torch_geometric.utils"))
def tudataset(folder: Path) -> tuple[str, ...]:
    (folder / "model.py").write_text(GRAPHS)
    write_spec(folder, "class_path: model.py:Net", "format: tudataset, path: data, batch_size: 3")
    (folder / "data").mkdir()
    edges = [(1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4), (6, 7), (7, 6), (8, 9), (9, 8)]
    texts = {
        "A": "".join(f"{one}, {two}\n" for one, two in edges),
        "graph_indicator": "1\n1\n1\n2\n2\n3\n3\n4\n4\n",
        "graph_labels": "1\n-1\n1\n-1\n",
        "node_labels": "0\n1\n0\n1\n2\n0\n1\n2\n2\n",
        "node_attributes": "".join(f"{i / 3}, {-i}\n" for i in range(9)),
        "edge_labels": "0\n0\n1\n1\n2\n2\n0\n0\n1\n1\n",
    }
    for name, text in texts.items():
        (folder / "data" / f"T_{name}.txt").write_text(text)
    return ("data/",)
