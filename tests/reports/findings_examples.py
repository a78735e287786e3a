"""Findings as `inspect` and `doctor` make them, for the golden files."""

from hessdiag.findings import Device, Examination, Inspection, Package, Refusal, SelfTest, TensorInfo
from hessdiag.results import CrosscheckRow

LONG = "model.decoder.layers.0.self_attention.query_key_value.projection"
SHA = "b96a104626a71bee7c9d169e49bb453577b28f8f0ce463bf54d1ca976aebfc24"


def tensor(name, shape, parameters, dtype="float32", size=4, nan=0, inf=0, same_as=None):
    return TensorInfo(name, shape, dtype, parameters, parameters * size, nan, inf, same_as)


WEIGHTS = Inspection(
    "fixtures/digits/mlp.safetensors",
    "safetensors",
    1,
    9928,
    SHA,
    tensors=(tensor("fc1.bias", (32,), 32), tensor("fc1.weight", (32, 64), 2048)),
)

ODD = Inspection(
    "checkpoints/run-2026-11-21/step-00012000/epoch-3/pytorch_model-with-a-long-name.bin",
    "lightning",
    2,
    24_011_008,
    SHA,
    architecture={"architecture": "GPT2LMHeadModel", "model type": "gpt2", "vocabulary": "50257"},
    tensors=(
        tensor(f"{LONG}.weight", (40, 30), 1200, nan=1, inf=3),
        tensor(f"{LONG}.bias", (30,), 30, "bfloat16", 2),
        tensor("evil\x1b[31m\n[bold]name", (1000, 1000), 1_000_000),
        tensor("head.weight", (40, 30), 1200, same_as=f"{LONG}.weight", nan=1, inf=3),
        tensor("position_ids", (), 1, "int64", 8),
        tensor("elsewhere", (3,), 3, nan=None, inf=None),
    ),
    besides={"epoch": "3", "optimizer": "dict of 2", "hyper\x1b[2Jparameters": "'\u202etext'"},
)

REFUSED = Inspection(
    "evil.pt",
    "state_dict",
    1,
    6400,
    SHA,
    refusal=Refusal(
        "refused: its pickle calls posix.system, and nothing in a checkpoint is run. Save the weights alone: "
        "torch.save(model.state_dict(), ...) or safetensors",
        ("posix.system", "some_package.with_a_long_name.submodule.another_submodule.configuration.TrainingArguments"),
    ),
)

INSPECTIONS = {"inspect": WEIGHTS, "inspect-odd": ODD, "inspect-refused": REFUSED}

REFERENCE = "dense float64 Hessian"
NEEDED = tuple(
    Package(name, None, version)
    for name, version in (("torch", "2.13.0+cpu"), ("numpy", "2.4.6"), ("pyhessian", "0.1"))
)
ROWS = (
    CrosscheckRow("largest eigenvalue", 0.853518, 0.85351801, REFERENCE, 7.3e-8, 1e-4, "relative", True),
    CrosscheckRow("smallest eigenvalue", -0.579326, -0.579326, REFERENCE, 4.1e-8, 1e-4, "relative", True),
    CrosscheckRow("trace", 1.97487, 2.03034, REFERENCE, 1.2, 4.0, "standard errors", True),
)
WELL = Examination(
    "3.11.7",
    "Linux-6.1-x86_64-with-glibc2.36",
    "built for CUDA 12.8",
    (
        *NEEDED,
        Package("transformers", "hf", "5.23.0"),
        Package("scikit-learn", "tabular", "1.9.1"),
        Package("timm", "vision", None, "pip install 'hessdiag[vision]'"),
        Package("torchvision", "vision", None, "pip install 'hessdiag[vision]'"),
    ),
    (
        Device("cpu", "2 threads on 2 cores", 25_300_000_000, 24_500_000_000),
        Device("cuda:0", "NVIDIA H200", 150_000_000_000, 149_000_000_000),
        Device("mps", "Apple GPU"),
    ),
    (SelfTest("cpu", 1.3, ROWS), SelfTest("cuda:0", 0.42, ROWS)),
    version="0.1.0",
)
BROKEN = Examination(
    "3.11.7",
    "Linux-6.1-x86_64-with-glibc2.36",
    "built for CUDA 12.8, but it sees no such device",
    (
        *NEEDED,
        Package(
            "torchvision",
            "vision",
            "0.28.0",
            fault="the installed torchvision cannot be imported, because it lacks its compiled operators: install the "
            "pair from one index: pip install --force-reinstall torch==2.13.0 torchvision",
        ),
    ),
    (Device("cpu", "1 thread on 1 core", 25_300_000_000, 24_500_000_000),),
    (
        SelfTest(
            "cpu",
            1.3,
            (CrosscheckRow("largest eigenvalue", 0.7, 0.853518, REFERENCE, 0.18, 1e-4, "relative", False), *ROWS[1:]),
        ),
        SelfTest("cuda:0", 0.1, fault="RuntimeError: CUDA error: no kernel image is available for execution"),
    ),
    version="0.1.0",
)
WITHOUT_TORCH = Examination(
    "3.11.7",
    "Linux-6.1-x86_64-with-glibc2.36",
    None,
    (
        Package("torch", None, "2.13.0+cpu", fault="cannot be imported (OSError: libtorch_cpu.so): install it again"),
        Package("numpy", None, None, "pip install --upgrade hessdiag"),
        Package("peft", "hf", "0.21.2"),
    ),
    (),
    (),
    version="0.1.0",
)
EXAMINATIONS = {"doctor": WELL, "doctor-broken": BROKEN, "doctor-without-torch": WITHOUT_TORCH}
