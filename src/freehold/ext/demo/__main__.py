"""``python -m freehold.ext.demo``: the command line of the demonstration."""

from __future__ import annotations

from freehold.ext.demo.command import demo

if __name__ == "__main__":
    demo(prog_name="python -m freehold.ext.demo")
