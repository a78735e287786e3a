"""What becomes of pictures: as a Hugging Face folder says of its model, else in ImageNet's usual way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hessdiag.files import read_json
from hessdiag.workflows.starter.text import Line, flow

__all__ = ["transform_lines"]

_PROCESSOR = "preprocessor_config.json"
_SAID = f"as {_PROCESSOR} says"
_USUAL = "ImageNet's usual values"
_MOST_PIXELS = 1 << 14  # on a side; more is damage
_MOST = 1e6  # of a mean, likewise


def transform_lines(folder: Path | None) -> list[Line]:
    """The lines of ``transform``.

    Args:
        folder: of the checkpoint, where it is one.
    """
    processor = (read_json(folder / _PROCESSOR) or {}) if folder is not None else {}
    config = (read_json(folder / "config.json") or {}) if folder is not None else {}
    heading = Line("transform:", "as the network was trained or tested")
    return [heading, *_sizes(processor, config), *_normalised(processor)]


def _sizes(processor: Mapping[str, Any], config: Mapping[str, Any]) -> list[Line]:
    size, source = _side(processor.get("size")), _SAID
    crop = _side(processor.get("crop_size")) if processor.get("do_center_crop") is not False else None
    if size is None and crop is None:
        crop, source = _side(config.get("image_size")), "as config.json says (image_size)"
    if size is None and crop is None:
        size, crop, source = 256, 224, _USUAL
    return [Line(f"resize: {size or crop}", source, 4), Line(f"crop: {crop or size}", indent=4)]


def _normalised(processor: Mapping[str, Any]) -> list[Line]:
    if processor.get("do_normalize") is False:
        return []
    mean, std = _numbers(processor.get("image_mean"), -_MOST), _numbers(processor.get("image_std"), 0)
    source = _SAID
    if mean is None or std is None:
        mean, std, source = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], _USUAL
    return [Line(f"mean: {flow(mean)}", source, 4), Line(f"std: {flow(std)}", indent=4)]


def _side(size: Any) -> int | None:
    """The side of a square: of n, [n, n], {shortest_edge: n} or {height: n, width: n}."""
    if isinstance(size, dict):
        size = size["shortest_edge"] if "shortest_edge" in size else [size.get("height"), size.get("width")]
    sides = size if isinstance(size, list) else [size]
    if not all(type(side) is int and 1 <= side <= _MOST_PIXELS for side in sides):
        return None
    return sides[0] if len(set(sides)) == 1 else None


def _numbers(values: Any, above: float) -> list[float] | None:
    """One for each of red, green and blue, or one for all."""
    numbers = values if isinstance(values, list) else [values]
    fit = all(type(number) in (int, float) and above < number < _MOST for number in numbers)
    return [float(number) for number in numbers] if fit and len(numbers) in (1, 3) else None
