"""The program, run again and again: one process that has imported everything, and for each run a fork of it.

It reads requests and writes outcomes as JSON lines. A fork that hangs, crashes or wants too much memory takes nothing
with it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import typer

ROOM = 5 << 30  # address space beyond that of the imports; files that are mapped take of it, too
ESCAPED = 86
_CREATING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOVING = {  # by event, the places of a path and of the descriptor of the folder that it starts from
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "shutil.rmtree": ((0, 1),),
}
_LEAVING = ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen", "pty.spawn")
_TALKING = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")


def main() -> None:
    _load([])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "modules" in request:
            _load(request["modules"])
            print(json.dumps({"ready": True}), flush=True)
        else:
            print(json.dumps(_watched(**request)), flush=True)


def _load(modules: list[str]) -> None:
    """Import before forking, which is what makes a run cheap."""
    import torch

    import hessdiag.cli.app
    import hessdiag.cli.measure
    import hessdiag.loading.inspection
    import hessdiag.loading.problems
    import hessdiag.reports.terminal
    import hessdiag.workflows.audit

    torch.set_num_threads(1)
    hessdiag.workflows.audit.audit = _measured_enough
    for module in modules:
        importlib.import_module(module)


def _measured_enough(*args: Any, **options: Any) -> NoReturn:
    """In the place of measuring: what is asked here is what happens before."""
    raise typer.Exit(0)


def _watched(argv: list[str], folder: str, writable: list[str], seconds: float) -> dict[str, Any]:
    """Run the program in a fork, in ``folder``, and tell how that ended."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(argv, folder, writable, out.fileno(), err.fileno())
        handle = os.pidfd_open(child)
        in_time = bool(select.select([handle], [], [], seconds)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        os.close(handle)
        _, status, usage = os.wait4(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(100_000).decode("utf-8", "backslashreplace"))
    return {
        "code": os.waitstatus_to_exitcode(status) if in_time else None,
        "stdout": texts[0],
        "stderr": texts[1],
        "seconds": time.monotonic() - begin,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def _run(argv: list[str], folder: str, writable: list[str], out: int, err: int) -> NoReturn:
    """What the fork does; it never returns."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.pop("HESSDIAG_REGENERATE_GOLDEN", None)
    _watch(writable)
    sys.argv = ["hessdiag", *argv]
    from hessdiag.cli.app import main as program

    code: object = 1
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _watch(writable: list[str]) -> None:
    """End at once, and say so, when anything is written outside ``writable``, run as a program, or sent away."""
    places = [Path(place).resolve() for place in (*writable, os.devnull)]

    def outside(path: object, folder: object = None) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # a descriptor that is open already
        start = f"/proc/self/fd/{folder}" if isinstance(folder, int) and folder >= 0 else ""
        try:
            found = Path(start, os.fsdecode(path)).resolve()
        except (OSError, ValueError):  # no system call takes it either
            return False
        return not any(found.is_relative_to(place) for place in places)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if (flags or 0) & _CREATING and outside(path):
                _escape(f"opened {path!r} for writing ({mode})")
        elif event in _MOVING:
            for place, start in _MOVING[event]:
                if outside(args[place], args[start] if start is not None and start < len(args) else None):
                    _escape(f"{event}{args!r}")
        elif event in _LEAVING or event in _TALKING:
            _escape(f"{event}{args!r}")

    sys.addaudithook(hook)


def _escape(what: str) -> NoReturn:
    os.write(2, f"\nESCAPED: {what}\n".encode(errors="backslashreplace"))
    os._exit(ESCAPED)


if __name__ == "__main__":
    main()
