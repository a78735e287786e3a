"""What is named on the command line and in the spec: targets, options, files, factories and losses."""

from __future__ import annotations

from pathlib import Path

import tiny
from error_cases import provoke, write_arrays, write_spec

DATA = "format: npz\npath: data.npz\ninputs: x\ntargets: y\n"
OWN = ("--model", "model.py:build", "--data", "data.yaml")
ARRAYS = "format: npz, path: data.npz, inputs: x, targets: y"


def target(title: str, *args: str, **files: str) -> None:
    """The tiny spec's folder with the data's file, and what ``files`` put over them (``_`` for the dot)."""

    def prepare(folder: Path) -> tuple[str, ...]:
        tiny.write(folder)
        (folder / "data.yaml").write_text(DATA)
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        return ("trace", *args)

    provoke("targets", title, prepare)


target("nothing of that name", "none.yaml")
target("no checkpoint of that name", "none.pt", *OWN)
target("a checkpoint without its data", "weights.safetensors")
target("a checkpoint of that name alone, not there", "none.safetensors")
target("a folder without its data", ".")
target("a spec with --model", "audit.yaml", "--model", "model.py:build")
target("a spec with --loss", "audit.yaml", "--loss", "mse")
target("a spec with --data", "audit.yaml", "--data", "data.yaml")
target("--data that is not there", "weights.safetensors", "--model", "model.py:build", "--data", "none.yaml")
target("--data of a whole spec", "weights.safetensors", "--model", "model.py:build", "--data", "audit.yaml")
target("--data that is empty", "weights.safetensors", *OWN, data_yaml="# nothing yet\n")
target("--data that is a list", "weights.safetensors", *OWN, data_yaml="- npz\n")
target("--data with an unknown format", "weights.safetensors", *OWN, data_yaml="format: nzp\n")
target("--data without targets", "weights.safetensors", *OWN, data_yaml=DATA.replace("targets: y\n", ""))
target("--data with an unknown array", "weights.safetensors", *OWN, data_yaml=DATA.replace("inputs: x", "inputs: z"))
target("--data whose file is not there", "weights.safetensors", *OWN, data_yaml=DATA.replace("data.npz", "none.npz"))
target("no --model for weights alone", "weights.safetensors", "--data", "data.yaml")
target("--model of a file that is not there", "weights.safetensors", "--model", "nets.py:build", *OWN[2:])
target("--model of a name that is not there", "weights.safetensors", "--model", "model.py:make", *OWN[2:])
target("an unknown --loss", "weights.safetensors", *OWN, "--loss", "crossentropy")
target("--out over the checkpoint", "weights.safetensors", *OWN, "--out", "weights.safetensors")
target("an empty spec", "audit.yaml", audit_yaml="")
target("a spec that is a list", "audit.yaml", audit_yaml="- model\n")
target("a spec without data", "audit.yaml", audit_yaml="model: {class_path: model.py:build}\n")
target(
    "files that are not there",
    "audit.yaml",
    audit_yaml=tiny.SPEC.replace("data.npz", "a.npz").replace("weights.", "w."),
)
target("a file in place of a folder", "audit.yaml", "--set", "data.format=imagefolder", "--set", "data.path=data.npz")
target("data in no file and no folder", "audit.yaml", "--set", "data.path=/dev/null")
target("an unknown device", "audit.yaml", "--device", "gpu")
target("another device of PyTorch's", "audit.yaml", "--device", "meta")
target("--allow-global of one word", "audit.yaml", "--checkpoint", "data.yaml", "--allow-global", "Path")


def by_factory(title: str, reference: str, code: str = tiny.MODEL, *, varying: str | None = None) -> None:
    def prepare(folder: Path) -> None:
        write_spec(folder, ARRAYS, f'class_path: "{reference}"')
        (folder / "model.py").write_text(code)
        write_arrays(folder)

    provoke("targets", f"a factory: {title}", prepare, varying=varying)


by_factory("not there", "model.py:make")
by_factory("a number", "model.py:build", "build = 3\n")
by_factory("of something else", "model.py:build", "def build():\n    return [1]\n")
by_factory("lazy layers", "model.py:build", "from torch import nn\n\n\ndef build():\n    return nn.LazyLinear(3)\n")
by_factory("it fails", "model.py:build", "def build():\n    raise ValueError('no such size')\n")
by_factory("its file fails", "model.py:build", "1 / 0\n")
by_factory("its file is none of Python", "audit.yaml:build")
by_factory("its package is not there", "no_such_package.Model")
by_factory("a package that is not installed", "model.py:build", "import no_such_package\n")
by_factory("a download", "model.py:build", "def build():\n    raise ConnectionError('no route to host')\n")
by_factory("it ends the program", "model.py:build", "import sys\ndef build():\n    sys.exit(5)\n")


def by_loss(title: str, code: str) -> None:
    def prepare(folder: Path) -> None:
        write_spec(folder, ARRAYS, loss="loss.py:loss")
        (folder / "loss.py").write_text(code)
        write_arrays(folder)

    provoke("targets", f"a loss: {title}", prepare)


by_loss("a number", "loss = 3\n")
by_loss("not there", "def los(outputs, targets):\n    return outputs\n")
