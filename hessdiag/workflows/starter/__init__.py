"""A commented starter spec, by asking the checkpoint and the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hessdiag.errors import CheckpointError
from hessdiag.findings import Inspection
from hessdiag.spec.architecture import default_loss
from hessdiag.workflows.starter.data import guess_data, no_data
from hessdiag.workflows.starter.guess import Kind
from hessdiag.workflows.starter.model import model_lines, output_width
from hessdiag.workflows.starter.records import Model
from hessdiag.workflows.starter.text import Line, relative, remark, render

__all__ = ["Starter", "starter_spec"]

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "tokenizer.model")
_AUDIT = (
    Line("audit:", indent=0),
    Line("eigenvalues: {top: 5, bottom: 1}", "the five largest and the smallest"),
    Line("trace: {rtol: 0.05}", "stop when the 95 % interval is within 5 % of the value"),
    Line("gap: {sigma: [0.008, 0.01, 0.012], draws: 100}", "noise levels in units of the weights"),
)


@dataclass(frozen=True)
class Starter:
    """The spec's text, and the options with which its checkpoint loads, if it needs any."""

    text: str
    options: tuple[str, ...] = ()


def starter_spec(out: Path, *, checkpoint: Path | None, data: str | None, model: str | None) -> Starter:
    """Write a spec for a checkpoint and data; what could not be found out is marked, and no valid spec.

    Args:
        out: where it will lie: the names in it are relative to that folder.
        checkpoint: a file or folder.
        data: a file or folder, or ``file.py:function``.
        model: what builds the network.

    Raises:
        UsageError: no such file.
        CheckpointError: damaged, or refused whatever one may allow.
        DataError: damaged, or of no known format.
    """
    folder = out.absolute().parent

    def shown(path: Path) -> str:
        return relative(path, folder)

    found = None if checkpoint is None else _inspected(checkpoint)
    usual = None if checkpoint is None else default_loss(checkpoint)
    tokenizer = checkpoint is not None and any((checkpoint / name).is_file() for name in _TOKENIZERS)
    fits = Model(shown(checkpoint) if checkpoint is not None and tokenizer else None, usual == "causal_lm", checkpoint)
    guess = no_data() if data is None else guess_data(data, shown, fits)
    lines = [
        remark("A starter spec by `hessdiag init`: look through it, then", 0),
        remark(f"hessdiag validate {out.name} checks it, hessdiag audit {out.name} measures.", 0),
        Line("model:", indent=0),
        *model_lines(found, checkpoint, model, folder, shown),
        Line("data:", indent=0),
        *guess.lines,
        guess.batch_size,
        Line("# max_examples: 1000", "a random subset; omitted: all"),
        _loss(usual, guess.targets, output_width(found)),
        *_AUDIT,
    ]
    return Starter(render(lines), _options(found))


def _inspected(checkpoint: Path) -> Inspection:
    from hessdiag.loading.checkpoints import Reading
    from hessdiag.loading.inspection import inspect

    found = inspect(checkpoint, str(checkpoint), Reading())
    if found.refusal is not None and not _options(found):
        raise CheckpointError(f"{checkpoint}: {found.refusal.reason}")
    return found


def _options(found: Inspection | None) -> tuple[str, ...]:
    """With what a refused checkpoint loads, if one trusts it."""
    if found is None or found.refusal is None:
        return ()
    if "--allow-global" in found.refusal.reason and found.refusal.globals:
        return tuple(f"--allow-global {name}" for name in found.refusal.globals)
    return ("--trust-checkpoint",) if "--trust-checkpoint" in found.refusal.reason else ()


def _loss(usual: str | None, targets: Kind | None, outputs: int | None) -> Line:
    if usual is not None:
        return Line(f"loss: {usual}", "as config.json says", 0)
    if targets == "floats":
        return Line("loss: mse", "the targets are not whole numbers; bce_with_logits where they are 0 and 1", 0)
    if targets is None:
        return Line("loss: cross_entropy", "or mse, bce_with_logits, nll, causal_lm, model", 0)
    one = "; but the last weight gives 1 output: bce_with_logits, or mse?" if outputs == 1 else ""
    why = "whole numbers" if targets == "integers" else "words"
    return Line("loss: cross_entropy", f"the targets are {why}{one}", 0)
