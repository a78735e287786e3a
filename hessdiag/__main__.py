"""``python -m hessdiag`` is ``hessdiag``."""

from hessdiag.cli.app import main

if __name__ == "__main__":
    main()
