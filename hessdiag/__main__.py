"""The program's entry: ``hessdiag``, and ``python -m hessdiag``."""

import sys


def main() -> None:
    """Run the program. A Ctrl-C while it is still being imported ends it like any other."""
    try:
        from hessdiag.cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
