"""What the person asked for, and the spec that comes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hessdiag.errors import Diagnostic, SpecError, UsageError
from hessdiag.spec.names import Weights

if TYPE_CHECKING:
    from hessdiag.spec import Spec
    from hessdiag.spec.targets import Target

__all__ = ["Common", "Request"]

Dtype = Literal["float32", "float64", "bfloat16"]


@dataclass(frozen=True)
class Common:
    """The common options, with their defaults."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")] = False
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the JSON report there. (default: .hessdiag/last-COMMAND.json)"),
    ] = None
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override the spec; repeatable.")
    ] = None
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights to load instead of the spec's.")] = (
        None
    )
    weights: Annotated[
        Weights | None, typer.Option(help="The weights as trained, or their moving average. (default: spec, model)")
    ] = None
    model: Annotated[
        str | None, typer.Option(metavar="FACTORY", help="What builds the model of a checkpoint, as model.py:build.")
    ] = None
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The data for a checkpoint: YAML, as under `data:` of a spec.")
    ] = None
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="The loss of a checkpoint.")] = None
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load a checkpoint that is a program: it may run anything.")
    ] = False
    allow_global: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Let the checkpoint's pickle call this name; repeatable."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of all random probes; never changes H.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[Dtype | None, typer.Option(help="Measure in this precision. (default: as the model is built)")] = (
        None
    )
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a batch.")] = None
    max_examples: Annotated[int | None, typer.Option(min=1, help="Measure on a random subset.")] = None
    max_time: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS|10m|2h",
            help="End with what is measured by then, loading included; a run that is cut short does not repeat.",
        ),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES|4GB|8GiB", help="The most to take for stored vectors. (default: half of what is free)"
        ),
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No forecast and no progress on stderr.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False


@dataclass(frozen=True)
class Request:
    """A target, the common options, and the command's own options (``a__b`` stands for the spec's key ``a.b``)."""

    command: str
    target: Path
    common: Common
    own: dict[str, Any] = field(default_factory=dict)

    def overridden(self, **own: Any) -> Request:
        """The same request with the command's own options; what was not given is None."""
        return replace(self, own=own)

    @property
    def out(self) -> Path:
        """Where the report goes."""
        return self.common.out or Path(".hessdiag") / f"last-{self.command}.json"

    def load_spec(self) -> Spec:
        """The spec with the command line over it.

        Raises:
            SpecError: it is wrong; a fault of an option names the option.
            UsageError: there is none, or the report would be written over a file that it names.
        """
        from hessdiag.spec import load_spec

        try:
            spec = load_spec(self._target(), self.overrides())
        except SpecError as error:
            raise SpecError([replace(d, file=self._as_typed(d.file)) for d in error.diagnostics]) from None
        self._refuse_overwriting(spec)
        return spec

    def _target(self) -> Target:
        from hessdiag.spec.targets import find_target

        common = self.common
        return find_target(self.target, model=common.model, data=common.data, loss=common.loss)

    def overrides(self) -> list[str]:
        """``KEY.PATH=VALUE`` texts for the spec; the options of their own name come last and win."""
        return [*(self.common.settings or []), *self._from_options()]

    def fault(self, key: str, message: str) -> SpecError:
        """Complain about a key of the spec, at its place: file, line and column, or the option that set it."""
        from hessdiag.spec.parse import spec_tree

        node, _ = spec_tree(self._target(), self.overrides())
        place = None
        if node is not None:
            place = node.place
            for step in key.split("."):
                node = node.child(step)
                if node is None:  # left to its default: blame what it would stand under
                    break
                place = node.place
        if place is None:
            return SpecError([Diagnostic(str(self.target), None, None, f"{key}: {message}")])
        return SpecError([replace(d, file=self._as_typed(d.file)) for d in [place.fault(f"{key}: {message}")]])

    def placed(self, error: UsageError, key: str) -> SpecError:
        """A fault of a key that showed only when what it names was opened, at its place in the spec."""
        return self.fault(key, str(error).removeprefix(f"{key}: "))

    def _from_options(self) -> dict[str, str]:
        """The texts for the spec, each with the option as it is typed."""
        checkpoint = self.common.checkpoint
        values = {
            "model__checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
            "model__weights": self.common.weights,
            "data__batch_size": self.common.batch_size,
            "data__max_examples": self.common.max_examples,
            "audit__max_time": self.common.max_time,
            "audit__memory": self.common.memory,
        } | self.own
        typed = {}
        for name, value in values.items():
            if value is not None:
                # YAML reads JSON, but not its pairs of escapes for one character.
                text = f"{name.replace('__', '.')}={json.dumps(value, ensure_ascii=False)}"
                typed[text] = f"--{name.rpartition('__')[2].replace('_', '-')} {value}"
        return typed

    def _as_typed(self, file: str) -> str:
        return {f"--set {text}": option for text, option in self._from_options().items()}.get(file, file)

    def _refuse_overwriting(self, spec: Spec) -> None:
        out = self.out.absolute()
        named = [self.target, *spec.files()]
        for path in named:
            if out.is_file() and path.exists() and (out.samefile(path) or _in_folder(out, path)):
                raise UsageError(f"--out {self.out}: would overwrite what is measured: name another file")


def _in_folder(out: Path, folder: Path) -> bool:
    """Whether a file of a folder that is measured is no report of ours, which may lie there too."""
    if not folder.is_dir() or not out.resolve().is_relative_to(folder.resolve()):
        return False
    with out.open("rb") as file:
        return b"hessdiag/report" not in file.read(100)
