"""``hessdiag nso train``: a spec and a folder go in; trained weights, their history and an audit are in the folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hessdiag.files import write_atomically
from hessdiag.loading import Reading, load_parts, load_problem
from hessdiag.loading.datasets import load_data
from hessdiag.loading.extras import MissingExtraError, import_extra
from hessdiag.losses import CausalLM, CrossEntropy, Loss, ModelLoss, as_loss
from hessdiag.nso.augment import Augmentation
from hessdiag.nso.events import Events
from hessdiag.nso.loop import Progress, Run, Watcher
from hessdiag.nso.monitor import Budget, monitored_examples
from hessdiag.nso.optimizers import make_optimizer
from hessdiag.nso.run_folder import RunFolder
from hessdiag.nso.training_data import TrainingData
from hessdiag.problem import Problem
from hessdiag.reports import json as json_report
from hessdiag.reports.plots import save_curves
from hessdiag.results import Report
from hessdiag.spec import Spec, load_spec
from hessdiag.spec.targets import find_target
from hessdiag.spec.write import moved, spec_text
from hessdiag.workflows.audit import Watch, audit

__all__ = ["Trained", "prepare", "train"]

_PANELS = {
    "loss": {"training": "loss", "validation": "validation_loss"},
    "accuracy": {"training": "accuracy", "validation": "validation_accuracy"},
    "Tr[H]": {"training": "trace"},
    "largest eigenvalue": {"training": "largest_eigenvalue"},
}
"""By the name of the panel, what is drawn in it, and the history's key."""


@dataclass(frozen=True)
class Trained:
    """What a run comes to.

    Attributes:
        report: the audit of the last weights on the spec's data, loss unsmoothed: as of ``hessdiag audit FOLDER``.
        history: a row for each epoch that is over, and one before the first.
        undrawn: why there are no curves.png and curves.svg; None: they are there.
    """

    report: Report
    history: list[dict[str, Any]]
    undrawn: str | None


def train(
    spec: Spec,
    folder: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    reading: Reading | None = None,
    step: Watcher = lambda progress: None,
    watch: Watch = lambda report, section: None,
) -> Trained:
    """Fine-tune what a spec names with its ``train:``, and audit the last weights.

    Args:
        spec: as loaded.
        folder: new or empty; or, with ``resume``, that of a run of the same spec.
        resume: go on with the run in ``folder``; where there is none yet, begin it.
        tensorboard: write the history as events too.
        device: as :func:`hessdiag.load` takes it.
        dtype: likewise.
        reading: what a checkpoint may do.
        step: is told of every step.
        watch: is told of the audit.

    Raises:
        UsageError: the folder holds something else, or settings do not fit.
        MeasurementError: the run diverged.
        HessdiagError: the model or the data could not be loaded.
    """
    place = RunFolder(folder)
    events = Events(folder / "tensorboard") if tensorboard else None

    def told(progress: Progress) -> None:
        if events is not None:
            events.write(progress.history)
        step(progress)

    text = spec_text(moved(spec, folder, absolute=True))
    place.refuse(text, resume=resume)
    run = prepare(spec, place, device=device, dtype=dtype, reading=reading, step=told)
    run.run(place.begin(text, resume=resume))
    undrawn = _draw(place, run.history)
    problem = load_problem(load_spec(find_target(folder)), device=device, dtype=dtype, reading=reading)
    report = audit(problem, spec.audit, command="nso train", watch=watch)
    write_atomically(place.report, json_report.render(report))
    return Trained(report, run.history, undrawn)


def _draw(folder: RunFolder, history: list[dict[str, Any]]) -> str | None:
    """The history's curves as pictures; or why not."""
    try:
        import_extra("matplotlib", "curves.png, curves.svg")
    except MissingExtraError as error:
        return str(error)
    panels = {
        name: {
            label: ([row["epoch"] for row in history if key in row], [row[key] for row in history if key in row])
            for label, key in curves.items()
            if any(key in row for row in history)
        }
        for name, curves in _PANELS.items()
    }
    drawn = {name: curves for name, curves in panels.items() if curves}
    for ending in ("png", "svg"):
        save_curves(folder.path / f"curves.{ending}", drawn, along="epochs")
    return None


def prepare(
    spec: Spec,
    folder: RunFolder,
    *,
    device: str = "auto",
    dtype: str | None = None,
    reading: Reading | None = None,
    step: Watcher = lambda progress: None,
) -> Run:
    """Load what a spec names and put a run together.

    Raises:
        HessdiagError: as :func:`train`.
    """
    plan, other = spec.train, spec.validation_data()
    parts = load_parts(spec, device=device, dtype=dtype, reading=reading)
    own = as_loss(parts.loss)
    data = TrainingData(
        parts.data,
        validation=plan.validation if other is None else load_data(other, spec.resolve),
        batch_size=plan.batch_size,
        seed=plan.seed,
        choice_seed=spec.data.seed,
        augment=None if plan.augment is None else Augmentation(plan.augment.crop, plan.augment.flip),
        keep_targets_in=isinstance(own, ModelLoss),
    )
    loss = _smoothed(own, 0.0)

    def problem_on(batches: Iterable[Any]) -> Problem:
        include, exclude = spec.parameters.include, spec.parameters.exclude
        return Problem(parts.model, loss, batches, include=include, exclude=exclude, checkpoint=parts.checkpoint)

    optimizer = make_optimizer(plan, parts.model, data.examples)
    allowed = plan.monitor_share * plan.epochs * data.examples * optimizer.gradients_per_step
    subset = data.monitored(monitored_examples(allowed, plan.monitor_examples, data.examples))
    monitored = problem_on(subset)
    seen = data.monitored(plan.monitor_examples)
    budget = Budget.of(allowed, plan.epochs, monitored.examples)
    notes = [note for note in (data.note, budget.refusal if plan.monitor_every else None) if note is not None]
    return Run(
        plan,
        data,
        monitored,
        monitored if seen.examples == subset.examples else problem_on(seen),
        None if data.validation is None else problem_on(data.validation),
        monitored.with_loss(own if plan.smoothing is None else _smoothed(own, plan.smoothing)),
        optimizer,
        budget,
        folder,
        step,
        about={"evaluated": str(seen), "monitored": str(subset)} | ({"notes": notes} if notes else {}),
    )


def _smoothed(loss: Loss, smoothing: float) -> Loss:
    """The loss with this label smoothing; one that knows none as it is."""
    if isinstance(loss, (CrossEntropy, CausalLM)):
        return replace(loss, label_smoothing=smoothing)
    return loss
