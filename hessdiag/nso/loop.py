"""Fine-tuning: from a spec's checkpoint, by one of the methods, monitored, resumable bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import HessdiagError, MeasurementError
from hessdiag.loading.references import described
from hessdiag.memory import memory_errors_explained, out_of_memory
from hessdiag.nso.accuracy import evaluate
from hessdiag.nso.methods.displaced import DisplacedOptimizer
from hessdiag.nso.monitor import Budget, sharpness
from hessdiag.nso.run_folder import RunFolder, State
from hessdiag.nso.schedule import learning_rate
from hessdiag.nso.training_data import TrainingData
from hessdiag.problem import Batch, Problem
from hessdiag.spec.train import TrainSpec

__all__ = ["Progress", "Run", "Watcher"]

_NOTHING = 1e-30  # in place of a denominator of 0, of a minibatch without a valid target
_SAVE_EVERY = 1000  # steps; a run that is killed repeats at most so many, or the epoch


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever watches it."""

    epoch: int
    minibatch: int
    minibatches: int
    loss: float
    history: list[dict[str, Any]]


Watcher = Callable[[Progress], None]


@dataclass(frozen=True)
class _Step:
    """What the optimizer is given, and how much of the data that is."""

    closures: Sequence[Callable[[], Tensor]]
    examples: int
    minibatches: int


class Run:
    """One training run, from its first epoch or from a state.

    Args:
        train: the spec's section.
        data: minibatches.
        monitored: the problem on the training examples whose sharpness is measured, with the loss unsmoothed; its
            model is the one that is trained.
        evaluated: that on the training examples whose loss and accuracy are told, more of them.
        validation: the problem on the validation data; None: there are none.
        objective: the monitored problem with the loss that is trained on.
        optimizer: the method.
        budget: of the monitor.
        folder: where everything is written.
        watch: is told of every step.
        about: what the history's first row says of the data.
    """

    def __init__(
        self,
        train: TrainSpec,
        data: TrainingData,
        monitored: Problem,
        evaluated: Problem,
        validation: Problem | None,
        objective: Problem,
        optimizer: DisplacedOptimizer,
        budget: Budget,
        folder: RunFolder,
        watch: Watcher = lambda progress: None,
        *,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._train, self._data = train, data
        self._monitored, self._evaluated, self._validation = monitored, evaluated, validation
        self._objective, self._optimizer, self._budget, self._folder = objective, optimizer, budget, folder
        self._model: nn.Module = monitored.model
        self._watch, self._about = watch, dict(about or {})
        self._rate = learning_rate(train.schedule, train.lr, train.epochs)
        self._state = State(0, 0, {}, {}, {})

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row for each epoch that is over, and one before the first."""
        return self._state.history

    def run(self, state: State | None = None) -> None:
        """Train to the end, from ``state`` where there is one.

        Raises:
            MeasurementError: the loss is not finite; the last good weights are in the folder.
        """
        with memory_errors_explained():
            if state is None:
                torch.manual_seed(self._train.seed)
                self._close_epoch(0)
            else:
                self._go_on(state)
            while self._state.epoch < self._train.epochs and not self._stopped_early:
                self._epoch(self._state.epoch)

    @property
    def _stopped_early(self) -> bool:
        patience = self._train.early_stopping
        return patience is not None and self._state.waited >= patience

    # -- steps ---------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> None:
        state, minibatches = self._state, self._data.minibatches
        self._model.train()
        for step in self._steps(epoch):
            rate = self._rate(epoch + state.minibatch / minibatches)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            loss = self._stepped(step, epoch)
            self._refuse_divergence(loss, epoch, state.minibatch)
            state.loss_sum += loss * step.examples
            state.loss_weight += step.examples
            state.minibatch += step.minibatches
            if state.minibatch % _SAVE_EVERY == 0 and state.minibatch < minibatches:
                self._save()
            self._watch(Progress(epoch, state.minibatch, minibatches, loss, state.history))
        self._close_epoch(epoch + 1)

    def _stepped(self, step: _Step, epoch: int) -> float:
        """Make a step; its loss."""
        try:
            return float(self._optimizer.step(*step.closures))
        except (HessdiagError, MemoryError):
            raise
        except Exception as error:  # whatever the model and the loss raise in training
            if out_of_memory(error):
                raise
            raise MeasurementError(
                f"step {self._optimizer.steps + 1} (epoch {epoch + 1}, {step.examples} examples) failed: "
                f"{described(error)}"
            ) from error

    def _steps(self, epoch: int) -> Iterator[_Step]:
        """One for each minibatch; on the full gradient one for the whole epoch."""
        data = self._data
        if self._train.gradient == "full":
            closures = [self._closure(lambda: map(self._placed, data.epoch(epoch)), self._weight)]
            if self._train.method == "sap":
                example = self._placed(data.example(epoch))
                closures.append(self._closure(lambda: [example]))
            yield _Step(closures, data.examples, data.minibatches)
            return
        for batch in data.epoch(epoch, skip=self._state.minibatch):
            placed = [self._placed(batch)]
            yield _Step([self._closure(lambda placed=placed: placed)], batch.examples, 1)  # type: ignore[misc]

    def _closure(self, batches: Callable[[], Iterable[Batch]], weight: float | None = None) -> Callable[[], Tensor]:
        """The gradient of the mean loss over some batches, of which several have so much ``weight`` together."""

        def closure() -> Tensor:
            self._optimizer.zero_grad()
            mean = torch.zeros((), dtype=torch.float64, device=self._monitored.device)
            for batch in batches():
                total, count = self._objective.batch_totals(batch)
                loss = total / (count.clamp(min=_NOTHING) if weight is None else weight)
                loss.backward()  # type: ignore[no-untyped-call]
                mean += loss.detach()
            return mean

        return closure

    @cached_property
    def _weight(self) -> float:
        """The loss's denominator over the training data."""
        with self._objective.measuring(), torch.no_grad():
            batches = map(self._placed, self._data.epoch(0))
            return math.fsum(float(self._objective.batch_totals(batch)[1]) for batch in batches)

    def _placed(self, batch: Batch) -> Batch:
        return batch.on(self._monitored.device, self._monitored.model_dtype)

    def _refuse_divergence(self, loss: float, epoch: int, minibatch: int) -> None:
        if math.isfinite(loss):
            return
        raise MeasurementError(
            f"the training loss is {loss} at step {self._optimizer.steps} (epoch {epoch + 1}, minibatch "
            f"{minibatch + 1}): the run has diverged: lower lr or sigma; {self._folder.last} holds the weights after "
            f"{epoch} epoch{'' if epoch == 1 else 's'}"
        )

    # -- between epochs ------------------------------------------------------------------------------------

    def _close_epoch(self, epochs: int) -> None:
        """Evaluate, measure, and write everything after so many epochs."""
        state = self._state
        row = self._row(epochs)
        state.history.append(row)
        best = row.get("validation_loss")
        improved = best is not None and (state.best is None or best < state.best)
        if improved:
            state.best, state.waited = best, 0
        elif epochs:
            state.waited += 1
        state.epoch, state.minibatch, state.loss_sum, state.loss_weight = epochs, 0, 0.0, 0.0
        folder = self._folder
        folder.save_weights(self._model, folder.last, *([folder.best] if improved or best is None else []))
        folder.save_history(state.history)
        self._save()
        self._watch(Progress(epochs, 0, self._data.minibatches, math.nan, state.history))

    def _row(self, epochs: int) -> dict[str, Any]:
        state, every = self._state, self._train.monitor_every
        row: dict[str, Any] = {"epoch": epochs, "step": self._optimizer.steps, "gradients": self._gradients}
        row |= {} if epochs else self._about
        row["lr"] = rate = self._rate(float(epochs))
        if state.loss_weight:
            row["training_loss"] = state.loss_sum / state.loss_weight
        row["loss"], accuracy = evaluate(self._evaluated)
        validated = evaluate(self._validation) if self._validation is not None else (None, None)
        if not math.isfinite(row["loss"]):
            raise MeasurementError(
                f"the loss is {row['loss']} after {epochs} epochs, at the weights themselves: the run has diverged: "
                f"lower lr; {self._folder.last} holds the weights of the epoch before"
            )
        measured = {"accuracy": accuracy, "validation_loss": validated[0], "validation_accuracy": validated[1]}
        row |= {key: value for key, value in measured.items() if value is not None}
        if validated[0] is not None:
            row["generalisation_gap"] = validated[0] - row["loss"]
        last = epochs == self._train.epochs
        if every and (epochs % every == 0 or last) and self._budget.affords(epochs):
            found, cost = sharpness(self._monitored, sigma=self._train.monitor_sigma, lr=rate, seed=self._train.seed)
            row |= found | {
                "monitor_gradients": self._budget.took(cost, self._monitored.examples) / self._data.examples
            }
        return row

    @property
    def _gradients(self) -> float:
        """Of the whole training data, so far."""
        full = self._train.gradient == "full"
        return self._optimizer.evaluations / (1 if full else self._data.minibatches)

    # -- the state -----------------------------------------------------------------------------------------

    def _save(self) -> None:
        state = self._state
        state.model, state.optimizer = self._model.state_dict(), self._optimizer.state_dict()
        state.spent, state.dearest = self._budget.spent, self._budget.dearest
        state.random = {"cpu": torch.get_rng_state()}
        if self._monitored.device.type == "cuda":
            state.random["cuda"] = torch.cuda.get_rng_state(self._monitored.device)
        self._folder.save(state)

    def _go_on(self, state: State) -> None:
        self._state = state
        self._model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        self._budget.spent, self._budget.dearest = state.spent, state.dearest
        torch.set_rng_state(state.random["cpu"])
        if "cuda" in state.random:
            torch.cuda.set_rng_state(state.random["cuda"], self._monitored.device)
