"""The environment: what is installed, where one may measure, and whether the numbers are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.filesize import decimal
from rich.text import Text

from hessdiag.findings import Device, Examination, Package, SelfTest
from hessdiag.reports.numbers import NONE, duration
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.crosscheck import comparison
from hessdiag.reports.terminal.layout import Cell, Column, heading, line, note, table

__all__ = ["doctor"]


def doctor(found: Examination, canvas: Canvas) -> Iterator[RenderableType]:
    """Versions, extras, devices, the self-test, and the verdict at the end, where the eye is."""
    yield canvas.text("hessdiag doctor", "bold")
    facts = {"hessdiag": found.version, "python": found.python, "platform": found.platform}
    rows = [(canvas.text(name, "dim"), Text(canvas.literal(fact))) for name, fact in facts.items()]
    yield table(canvas, [Column("", "left"), Column("", "left", folded=True)], rows)
    yield from _needed(found, canvas)
    yield from _extras([package for package in found.packages if package.extra is not None], canvas)
    yield from _devices(found.devices, canvas)
    yield from _self_tests(found.self_tests, canvas)
    yield from _verdict(found, canvas)


def _needed(found: Examination, canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, "Needed")
    rows = []
    for package in found.packages:
        if package.extra is None:
            about = (found.torch_build or "") if package.name == "torch" else ""
            rows.append((package.name, _version(package, canvas), about))
    yield table(canvas, [Column("", "left"), Column("", "left"), Column("", "left", folded=True)], rows)
    yield from _advice([package for package in found.packages if package.extra is None], canvas)


def _extras(packages: Sequence[Package], canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, "Extras")
    rows: list[tuple[Cell, ...]] = []
    shown = ""
    for package in packages:
        name = "" if package.extra == shown else str(package.extra)
        shown = str(package.extra)
        rows.append((name, package.name, _version(package, canvas)))
    yield table(canvas, [Column("extra", "left"), Column("package", "left"), Column("version", "left")], rows)
    yield from _advice(packages, canvas)


def _version(package: Package, canvas: Canvas) -> Text:
    if package.version is None:
        return canvas.text("missing", "bold red" if package.extra is None else "yellow")
    if package.fault is not None:
        return canvas.text(f"{package.version}, unusable", "bold red")
    return Text(canvas.literal(package.version))


def _advice(packages: Sequence[Package], canvas: Canvas) -> Iterator[RenderableType]:
    """What installs the missing ones, each command once, and what is wrong with the others."""
    for install in dict.fromkeys(package.install for package in packages if package.install is not None):
        names = ", ".join(package.name for package in packages if package.install == install)
        yield line(canvas, f"for {names}: {install}")
    for package in packages:
        if package.fault is not None:
            yield line(canvas, f"{package.name}: {package.fault}", "red")


def _devices(devices: Sequence[Device], canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, "Devices")
    if not devices:
        yield note(canvas, "not known without torch")
        return
    rows = [(device.name, _memory(device), Text(canvas.literal(device.description))) for device in devices]
    yield table(canvas, [Column("", "left"), Column("", "left"), Column("", "left", folded=True)], rows)


def _memory(device: Device) -> str:
    if device.memory is None:
        return NONE
    return decimal(device.memory) + ("" if device.free is None else f", {decimal(device.free)} free")


def _self_tests(tests: Sequence[SelfTest], canvas: Canvas) -> Iterator[RenderableType]:
    for test in tests:
        yield heading(canvas, f"Self-test on {test.device}")
        if test.rows:
            yield from comparison(test.rows, canvas)
        if test.fault is not None:
            yield line(canvas, test.fault, "bold red")
        yield note(canvas, f"83 parameters in float32, {duration(test.seconds)}")


def _verdict(found: Examination, canvas: Canvas) -> Iterator[RenderableType]:
    yield canvas.text("")
    needed = [p.name for p in found.packages if p.extra is None and (p.version is None or p.fault is not None)]
    failed = [test.device for test in found.self_tests if not test.passed]
    extras = [p.name for p in found.packages if p.extra is not None and p.fault is not None]
    if needed:
        yield canvas.text(f"Not well: without {', '.join(needed)} hessdiag cannot measure.", "bold red")
    if failed:
        yield canvas.text(
            f"Not well: the self-test failed on {', '.join(failed)}: do not trust what is measured there.", "bold red"
        )
    if found.well and extras:
        yield canvas.text(f"hessdiag measures right here, but cannot use {', '.join(extras)}.", "yellow")
    elif found.well:
        yield canvas.text("All is well.", "green")
