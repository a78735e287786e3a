"""What a Hugging Face folder says of its model, read without transformers."""

from __future__ import annotations

from pathlib import Path

from hessdiag.files import read_json

__all__ = ["default_loss"]

_PROBLEMS = {"regression": "mse", "multi_label_classification": "bce_with_logits"}


def default_loss(folder: Path) -> str | None:
    """The loss that the architecture in ``config.json`` was made for, or an adapter; None where it does not say."""
    adapter = read_json(folder / "adapter_config.json")
    if adapter is not None:
        return "causal_lm" if adapter.get("task_type") == "CAUSAL_LM" else None
    config = read_json(folder / "config.json")
    if config is None:
        return None
    names = config.get("architectures")
    architecture = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal_lm"
    return _PROBLEMS.get(str(config.get("problem_type")))
