"""One fault each: § marks the place that the diagnostic must name."""

# ruff: noqa: E501 (a table reads best with a row to a line)

from __future__ import annotations

import pytest
from spec_texts import BASE, Faults, Load, marked

FORMATS = "npz, safetensors, idx, cifar, imagefolder, csv, parquet, jsonl, hf, sklearn, tudataset or python"
METHODS = "nso, sgd, label-smoothing, wp-sgd, sam, asam, rsam, bsam, rsp or sap"
LOSSES = 'cross_entropy, mse, bce_with_logits, nll, causal_lm or model; or "file.py:name"'

BAD = [
    # Unknown keys: the key.
    ("§date: 3", "date: unknown key; did you mean data?"),
    ("audit: {§eigs: {top: 3}}", "audit.eigs: unknown key; expected one of: eigenvalues, trace, gap, density, max_time, memory"),
    ("audit: {trace: {§top: 3}}", "audit.trace.top: unknown key; expected one of: method, rtol, max_matvecs"),
    ("loss: {name: nll, §wieght: [1]}", "loss.wieght: unknown key; did you mean weight?"),
    ("loss: {name: model, §model: 3}", "loss.model: unknown key; expected one of: name, ignore_index"),
    ("loss: {name: 'model.py:f', §weight: [1]}", "loss.weight: unknown key; expected one of: name"),
    # Types: the value.
    ("audit: {gap: {draws: §true}}", "audit.gap.draws: found true (a truth value), expected a whole number of at least 2"),
    ("audit: {gap: {draws: §5.0}}", "audit.gap.draws: found 5.0, expected a whole number of at least 2"),
    ("audit: {gap: {draws: §1:30}}", "audit.gap.draws: found '1:30' (text), expected a whole number of at least 2"),
    ("audit: {gap: {draws:§ }}", "audit.gap.draws: found nothing (null), expected a whole number of at least 2"),
    ("audit: {gap: {draws: §[]}}", "audit.gap.draws: found an empty list, expected a whole number of at least 2"),
    ("audit: {trace: {rtol: §true}}", "audit.trace.rtol: found true (a truth value), expected a finite number greater than 0"),
    ("audit: {trace: {rtol: §yes}}", "audit.trace.rtol: found 'yes', expected a finite number greater than 0"),
    ("audit: {trace: §on}", "audit.trace: found 'on', expected a mapping"),
    ("audit:§ ", "audit: found nothing (null), expected a mapping"),
    ("audit: §[trace]", "audit: found a list, expected a mapping"),
    ("parameters: {include: §'*.weight'}", "parameters.include: found '*.weight', expected a list"),
    ("parameters: {exclude: [a, §1]}", "parameters.exclude[1]: found 1, expected text; write it in quotes"),
    ("parameters: {include: §[]}", "parameters.include: found an empty list, expected at least one item"),
    # Ranges.
    ("audit: {eigenvalues: {bottom: §-1}}", "audit.eigenvalues.bottom: found -1, expected a whole number of at least 0"),
    ("audit: {eigenvalues: {max_matvecs: §0}}", "audit.eigenvalues.max_matvecs: found 0, expected a whole number of at least 1"),
    ("audit: {eigenvalues: {rtol: §0}}", "audit.eigenvalues.rtol: found 0, expected a finite number greater than 0"),
    ("audit: {eigenvalues: {rtol: §.inf}}", "audit.eigenvalues.rtol: found .inf, expected a finite number greater than 0"),
    ("audit: {trace: {max_matvecs: §1}}", "audit.trace.max_matvecs: found 1, expected a whole number of at least 2"),
    ("audit: {trace: {method: xtrace, max_matvecs: §5}}", "audit.trace.max_matvecs: found 5, expected at least 6 for method xtrace"),
    ("audit: {trace: {max_matvecs: §3, method: hutch++}}", "audit.trace.max_matvecs: found 3, expected at least 4 for method hutch++"),
    ("audit: {density: {steps: §1}}", "audit.density.steps: found 1, expected a whole number of at least 2"),
    ("audit: {density: {probes: §0}}", "audit.density.probes: found 0, expected a whole number of at least 1"),
    ("audit: {density: {points: §15}}", "audit.density.points: found 15, expected a whole number of at least 16"),
    ("loss: {name: causal_lm, label_smoothing: §1}", "loss.label_smoothing: found 1, expected a number from 0 to below 1"),
    ("loss: {name: nll, weight: [1, §-.inf]}", "loss.weight[1]: found -.inf, expected a finite number of at least 0"),
    ("loss: {name: bce_with_logits, pos_weight: §[]}", "loss.pos_weight: found an empty list, expected at least one item"),
    # Quantities.
    ("audit: {max_time: §0}", "audit.max_time: found 0, expected a time greater than 0: seconds, or as 90s, 10m, 2h or 1h30m"),
    ("audit: {max_time: §-1}", "audit.max_time: found -1, expected a time greater than 0: seconds, or as 90s, 10m, 2h or 1h30m"),
    ("audit: {max_time: §true}", "audit.max_time: found true (a truth value), expected a time greater than 0: seconds, or as 90s, 10m, 2h or 1h30m"),
    ("audit: {max_time: §5 minutes}", "audit.max_time: found '5 minutes', expected a time greater than 0: seconds, or as 90s, 10m, 2h or 1h30m"),
    ("audit: {memory: §0}", "audit.memory: found 0, expected an amount of memory of at least 1 byte: bytes, or as 500MB, 4GB or 8GiB"),
    ("audit: {memory: §.inf}", "audit.memory: found .inf, expected an amount of memory of at least 1 byte: bytes, or as 500MB, 4GB or 8GiB"),
    ("audit: {memory: §4 gigabytes}", "audit.memory: found '4 gigabytes', expected an amount of memory of at least 1 byte: bytes, or as 500MB, 4GB or 8GiB"),
    # Words.
    ("audit: {trace: {method: §hutchison}}", "audit.trace.method: found 'hutchison', expected auto, gauss-newton, hutchinson, hutch++, xtrace or deflated; did you mean hutchinson?"),
    ("audit: {eigenvalues: {method: §qr}}", "audit.eigenvalues.method: found 'qr', expected lanczos or power"),
    ("audit: {gap: {estimator: §two_sided}}", "audit.gap.estimator: found 'two_sided', expected two-sided or one-sided; did you mean two-sided?"),
    ("audit: {gap: {distribution: §normal}}", "audit.gap.distribution: found 'normal', expected gaussian, laplace, uniform or binomial"),
    ("loss: §crossentropy", f"loss: found 'crossentropy', expected {LOSSES}; did you mean cross_entropy?"),
    ("loss: {name: §hinge}", f"loss.name: found 'hinge', expected {LOSSES}"),
    ("loss: §{label_smoothing: 0.1}", f"loss.name: missing; expected {LOSSES}"),
    ("loss:§ ", f"loss: found nothing (null), expected {LOSSES}"),
    ("loss: §3", f"loss: found 3, expected {LOSSES}"),
    ("loss: §loss:f", "loss: found 'loss:f', expected \"file.py:name\""),
    # Sigmas.
    ("audit: {gap: {sigma: §true}}", 'audit.gap.sigma: found true (a truth value), expected a number, a list of numbers, "start:stop:count", "0.02,0.03" or auto'),
    ("audit: {gap: {sigma: §[]}}", "audit.gap.sigma: found an empty list, expected at least one item"),
    ("audit: {gap: {sigma: §-1}}", "audit.gap.sigma: found -1, expected a finite number greater than 0"),
    ("audit: {gap: {sigma: [1, §'2']}}", "audit.gap.sigma[1]: found '2' (text), expected a finite number greater than 0; remove the quotes"),
    ("audit: {gap: {sigma: §[0.1, 0.1]}}", "audit.gap.sigma: found 0.1 twice, expected different sigmas"),
    ("audit: {gap: {sigma: §1:2}}", "audit.gap.sigma: found '1:2', expected start:stop:count, for example 0.02:0.03:11"),
    # Training.
    ("train: §nso", "train: found 'nso', expected a mapping"),
    ("train: {method: §adam}", f"train.method: found 'adam', expected {METHODS}; did you mean asam?"),
    ("train: {§learning_rate: 0.1}", "train.learning_rate: unknown key; expected one of: method, sigma, num_perturbations, distribution, rho, smoothing, lam, damping, precision, betas, eps0, descent_lr, gradient, epochs, batch_size, lr, schedule, optimizer, momentum, weight_decay, distance_l2, clip_norm, augment, early_stopping, validation, monitor_every, monitor_examples, monitor_share, seed"),
    ("train: {§epoch: 3}", "train.epoch: unknown key; did you mean epochs?"),
    ("train: {sigma: §-0.1}", "train.sigma: found -0.1, expected a finite number of at least 0"),
    ("train: {sigma: §null}", "train.sigma: found nothing (null), expected a value; omitted, it is 0.01"),
    ("train: {distribution: §binomial-uncentred}", "train.distribution: found 'binomial-uncentred', expected gaussian, laplace, uniform, binomial or binomial-uncentered; did you mean binomial-uncentered?"),
    ("train: {num_perturbations: §0}", "train.num_perturbations: found 0, expected a whole number of at least 1"),
    ("train: {method: label-smoothing, smoothing: §0}", "train.smoothing: found 0, expected a number above 0 and below 1"),
    ("train: {method: label-smoothing, smoothing: §1}", "train.smoothing: found 1, expected a number above 0 and below 1"),
    ("train: {method: bsam, betas: §[0.9]}", "train.betas: found a list, expected two numbers, as [0.9, 0.999]"),
    ("train: {method: bsam, betas: [0.9, §1]}", "train.betas[1]: found 1, expected a number from 0 to below 1"),
    ("train: {method: bsam, precision: §0}", "train.precision: found 0, expected a finite number greater than 0"),
    ("train: {method: rsp, eps0: §-1}", "train.eps0: found -1, expected a finite number of at least 0"),
    ("train: {method: sap, gradient: §batch}", "train.gradient: found 'batch', expected minibatch or full"),
    ("train: {epochs: §0}", "train.epochs: found 0, expected a whole number of at least 1"),
    ("train: {lr: §0}", "train.lr: found 0, expected a finite number greater than 0"),
    ("train: {momentum: §1}", "train.momentum: found 1, expected a number from 0 to below 1"),
    ("train: {clip_norm: §0}", "train.clip_norm: found 0, expected a finite number greater than 0"),
    ("train: {augment: §flip}", "train.augment: found 'flip', expected a mapping"),
    ("train: {augment: {flip: §yes}}", "train.augment.flip: found 'yes', expected true or false"),
    ("train: {augment: {crop: §-1}}", "train.augment.crop: found -1, expected a whole number of at least 0"),
    ("train: {early_stopping: §0}", "train.early_stopping: found 0, expected a whole number of at least 1"),
    ("train: {monitor_share: §1.5}", "train.monitor_share: found 1.5, expected a number above 0 and below 1"),
    ("train: {seed: §-1}", "train.seed: found -1, expected a whole number of at least 0"),
    ("train: {validation: §1}", "train.validation: found 1, expected a number from 0 to below 1, or a mapping with the keys of `data:` that differ"),
    ("train: {validation: §true}", "train.validation: found true (a truth value), expected a number from 0 to below 1, or a mapping with the keys of `data:` that differ"),
    ("train: {validation: §val.npz}", "train.validation: found 'val.npz', expected a number from 0 to below 1, or a mapping with the keys of `data:` that differ"),
    ("train: {schedule: §cosin}", "train.schedule: found 'cosin', expected constant, step or cosine; did you mean cosine?"),
    ("train: {schedule: {name: §linear}}", "train.schedule.name: found 'linear', expected constant, step or cosine"),
    ("train: {schedule: §{every: 5}}", "train.schedule.name: missing; expected constant, step or cosine"),
    ("train: {schedule: {name: step, §warmup: 5}}", "train.schedule.warmup: unknown key; expected one of: name, every, factor"),
    ("train: {schedule: {name: step, every: §0}}", "train.schedule.every: found 0, expected a finite number greater than 0"),
    ("train: {schedule: {name: cosine, floor: §1}}", "train.schedule.floor: found 1, expected a number from 0 to below 1"),
    ("train: {optimizer: §torch.optim.SGD}", "train.optimizer: found 'torch.optim.SGD', expected the name of a class of torch.optim, as AdamW"),
    ("train: {optimizer: §null}", "train.optimizer: found nothing (null), expected the name of a class of torch.optim, as AdamW"),
    ("train: {optimizer: {name: §3}}", "train.optimizer.name: found 3, expected text; write it in quotes"),
    ("train: {optimizer: §{betas: [0.9, 0.99]}}", "train.optimizer.name: missing; expected the name of a class of torch.optim, as AdamW"),
    ("train: {optimizer: {name: AdamW, lr: §0.1}}", "train.optimizer.lr: found 0.1, expected none here: it is train.lr"),
    # Keys of other methods: the key.
    ("train: {§rho: 0.1}", "train.rho: found with method nso, which has no such key; expected method sam, asam, rsam, bsam, rsp or sap"),
    ("train: {§sigma: 0.1, method: sgd}", "train.sigma: found with method sgd, which has no such key; expected method nso, wp-sgd or rsam"),
    ("train: {method: sam, §smoothing: 0.1}", "train.smoothing: found with method sam, which has no such key; expected method label-smoothing"),
    ("train: {method: sam, §eps0: null}", "train.eps0: found with method sam, which has no such key; expected method rsp or sap"),
    ("train: {method: bsam, §momentum: 0}", "train.momentum: found with method bsam, which has no such key; expected method nso, sgd, label-smoothing, wp-sgd, sam, asam, rsam, rsp or sap"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text for text, _ in BAD])
def test_one_fault_with_its_place(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(BASE + text)
    assert faults(plain) == [(line, column, message)]


BAD_HEAD = [
    ("model: §3", "model: found 3, expected a mapping"),
    ("model: §{checkpoint: mlp.safetensors}",
     'model.class_path: missing; expected what builds the model: "file.py:name" beside the spec, or "package.module.Name"'),
    ("model: {class_path: §build}",
     'model.class_path: found \'build\', expected "file.py:name" (a file beside the spec) or "package.module.Name"'),
    ("model: {class_path: §pkg.mod:Name}",
     'model.class_path: found \'pkg.mod:Name\', expected "file.py:name" (a file beside the spec) or "package.module.Name"'),
    ("model: {class_path: a.b, init_args: §[1]}", "model.init_args: found a list, expected a mapping"),
    ("model: {class_path: a.b, checkpoint: §''}", "model.checkpoint: found '' (empty), expected text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_HEAD, ids=[text for text, _ in BAD_HEAD])
def test_faults_of_the_model(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(text + "\n" + BASE.splitlines()[1])
    assert faults(plain) == [(line, column, message)]


BAD_DATA = [
    ("§{}", "data.format: missing; expected the format of the data: " + FORMATS),
    ("{format: §nzp, path: digits.npz}", "data.format: found 'nzp', expected " + FORMATS),
    ("{format: npz, path: digits.npz, inputs: §3, targets: y}",
     "data.inputs: found 3, expected a name, a list of them, or a mapping from argument to name"),
    ("{format: npz, path: digits.npz, inputs: {a: §3}, targets: y}",
     "data.inputs.a: found 3, expected text; write it in quotes"),
    ("{format: npz, path: digits.npz, inputs: {mapping: §3}, targets: y}",
     "data.inputs.mapping: found 3, expected text; write it in quotes"),
    ("{format: npz, path: digits.npz, inputs: §{}, targets: y}",
     "data.inputs: found an empty mapping, expected at least one item"),
    ("{format: npz, path: digits.npz, inputs: x, targets: §1}",
     "data.targets: found 1, expected text; write it in quotes"),
    ("{format: npz, path: digits.npz, inputs: x, targets: y, max_examples: §0}",
     "data.max_examples: found 0, expected a whole number of at least 1"),
    ("{format: npz, path: digits.npz, inputs: x, targets: y, seed: §-1}",
     "data.seed: found -1, expected a whole number of at least 0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_DATA, ids=[text for text, _ in BAD_DATA])
def test_faults_of_the_data(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(BASE.splitlines()[0] + "\ndata: " + text)
    assert faults(plain)[0] == (line, column, message)


def test_an_int_is_fine_for_a_float(load: Load) -> None:
    trace = load(BASE + "audit: {trace: {rtol: 1}}").audit.trace
    assert trace is not None
    assert isinstance(trace.rtol, float)
