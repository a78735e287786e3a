"""``hessdiag nso train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessdiag.cli.failures import INTERRUPTED, failures_explained, no_more_interrupts, warnings_hidden
from hessdiag.cli.request import Common, Dtype, Request
from hessdiag.cli.streams import results_alone_on_stdout, say
from hessdiag.errors import UsageError
from hessdiag.spec.names import NoiseDistribution, TrainingMethod

if TYPE_CHECKING:
    from hessdiag.nso.train import Trained
    from hessdiag.spec import Spec

__all__ = ["train"]


def train(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A spec; what is trained stands under `train:` in it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run's folder: weights, history, audit.")],
    method: Annotated[TrainingMethod | None, typer.Option(help="How to train. (default: spec, nso)")] = None,
    sigma: Annotated[float | None, typer.Option(help="Of the noise: nso, wp-sgd, rsam.")] = None,
    num_perturbations: Annotated[int | None, typer.Option(help="Draws of the noise a step: nso, wp-sgd.")] = None,
    distribution: Annotated[NoiseDistribution | None, typer.Option(help="Of the noise: nso, wp-sgd.")] = None,
    rho: Annotated[float | None, typer.Option(help="Length of the displacement: sam and its kin, rsp, sap.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a minibatch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR, bit for bit.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the history as TensorBoard events too. (extra: tensorboard)")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override the spec; repeatable.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights to start from.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[Dtype | None, typer.Option(help="Train in this precision. (default: as the model is built)")] = (
        None
    ),
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load a checkpoint that is a program: it may run anything.")
    ] = False,
    allow_global: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Let the checkpoint's pickle call this name; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the audit as one JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Fine-tune a spec's checkpoint towards a flat minimum, and watch its sharpness.

    DIR gets last.safetensors and best.safetensors, history.jsonl, the resolved spec.yaml, report.json with the audit
    of the last weights, and state.pt, from which --resume goes on. `hessdiag audit DIR` measures it again.
    """
    common = Common(
        as_json=as_json,
        settings=settings,
        checkpoint=checkpoint,
        device=device,
        dtype=dtype,
        trust_checkpoint=trust_checkpoint,
        allow_global=allow_global,
        quiet=quiet,
        debug=debug,
    )
    own = {
        "method": method,
        "sigma": sigma,
        "num_perturbations": num_perturbations,
        "distribution": distribution,
        "rho": rho,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
    }
    request = Request("nso train", spec, common, {f"train__{key}": value for key, value in own.items()})
    with failures_explained(debug), warnings_hidden(unless=debug):
        _train(request, request.load_spec(), out, resume=resume, tensorboard=tensorboard)


def _train(request: Request, spec: Spec, out: Path, *, resume: bool, tensorboard: bool) -> None:
    from hessdiag.cli.training_progress import training_progress
    from hessdiag.loading import Reading
    from hessdiag.nso.train import train as run

    common = request.common
    reading = Reading(trust=common.trust_checkpoint, allowed_globals=tuple(common.allow_global or ()))
    with results_alone_on_stdout(), training_progress(common.quiet, spec.train.epochs) as shown:
        try:
            trained = run(
                spec,
                out,
                resume=resume,
                tensorboard=tensorboard,
                device=common.device,
                dtype=common.dtype,
                reading=reading,
                step=shown.step,
                watch=shown.audit,
            )
        except UsageError as error:
            if error.key is None:
                raise
            raise request.placed(error, error.key) from error
        except KeyboardInterrupt:
            no_more_interrupts()
            shown.end()
            say(f"interrupted: {out} holds the run up to here; the same command with --resume goes on from there")
            raise typer.Exit(INTERRUPTED) from None
    _print(trained, out, common.as_json)


def _print(trained: Trained, out: Path, as_json: bool) -> None:
    from hessdiag.reports import json as json_report
    from hessdiag.reports import terminal
    from hessdiag.reports.console import stdout_console

    if as_json:
        sys.stdout.write(json_report.render(trained.report))
    else:
        stdout_console().print(terminal.render_training(trained.history))
        stdout_console().print(terminal.render(trained.report, saved_to=str(out / "report.json")))
    if trained.undrawn is not None:
        say(f"no pictures: {trained.undrawn}")
