"""Random numbers that are the same whoever draws them."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["keyed_generator"]


def keyed_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator of its own for each ``key`` of whole numbers from 0, such as (seed, stream, draw, batch)."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)
    generator = torch.Generator(device)
    generator.manual_seed(int(seed))
    return generator
