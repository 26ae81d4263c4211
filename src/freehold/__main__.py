"""``python -m freehold``: the command line."""

from __future__ import annotations

from freehold.cli import main

if __name__ == "__main__":
    main(prog_name="python -m freehold")
