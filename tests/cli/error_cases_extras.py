"""Optional packages that are missing or broken: each is hidden from the program, whether it is installed or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from error_cases import TRACE, provoke, write_files, write_spec

PACKAGES = {
    "pyarrow": ("format: parquet, path: data.parquet, targets: y", {"data.parquet": "x"}),
    "datasets": ("format: hf, path: sets, inputs: x, targets: y", {"sets/train.jsonl": "{}"}),
    "transformers": (
        "format: jsonl, path: data.jsonl, inputs: x, targets: y, tokenizer: words",
        {"data.jsonl": '{"x": "a", "y": 0}', "words/x": ""},
    ),
    "PIL": ("format: imagefolder, path: sets", {"sets/cat/a.png": ""}),
    "torch_geometric": ("format: tudataset, path: sets", {"sets/x": ""}),
    "sklearn": ("format: sklearn, name: digits", {}),
}


class Hidden:
    """A finder of modules to which a package is not there."""

    def __init__(self, package: str, error: Exception | None = None) -> None:
        self.package, self.error = package, error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self.package:
            raise self.error or ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide(package: str, error: Exception | None = None) -> None:
    """Until :func:`show`."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        KEPT[name] = sys.modules.pop(name)
    sys.meta_path.insert(0, Hidden(package, error))


def show() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Hidden)]
    sys.modules.update(KEPT)
    KEPT.clear()


KEPT: dict[str, Any] = {}


def hidden(package: str, data: str, files: dict[str, str], model: str | None = None) -> None:
    def prepare(folder: Path) -> tuple[str, ...]:
        write_spec(folder, data, *([model] if model else []))
        write_files(folder, files)
        hide(package)
        return TRACE

    provoke("extras", f"{package} is not installed", prepare)


for _package, (_data, _files) in PACKAGES.items():
    hidden(_package, _data, _files)
ARRAYS = "format: npz, path: data.npz, inputs: x, targets: y"
hidden("timm", ARRAYS, {"data.npz": "x"}, "class_path: timm.create_model, init_args: {model_name: resnet18}")
hidden("torchvision", ARRAYS, {"data.npz": "x"}, "class_path: torchvision.models.resnet18")
hidden("peft", ARRAYS, {"data.npz": "x", "saved/adapter_config.json": '{"peft_type": "LORA"}'}, "checkpoint: saved")


def broken(title: str, package: str, code: str) -> None:
    """A package of that name whose import fails, beside the spec."""

    def prepare(folder: Path) -> tuple[str, ...]:
        write_spec(folder, ARRAYS, "class_path: model.py:build")
        write_files(folder, {"data.npz": "x", "model.py": code})
        return TRACE

    builds = (r"(?<=torch than )[^ ]+(?=\. It takes)", r"(?<=one index: )pip install [^(]+(?= \(or)")
    provoke("extras", title, prepare, varying="|".join(builds))


broken(
    "torchvision of another torch", "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')\n"
)


def damaged(folder: Path) -> None:
    write_spec(folder, PACKAGES["pyarrow"][0])
    write_files(folder, {"data.parquet": "x"})
    hide("pyarrow", ImportError("libarrow.so: undefined symbol"))


provoke("extras", "a package that is broken", damaged)
