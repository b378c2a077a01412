"""The command, as ``python -m micropref``."""

from micropref.cli import main

if __name__ == "__main__":
    main()
