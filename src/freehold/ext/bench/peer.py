"""Run by path, in any system's interpreter: measure one system, print a JSON line per result.

    python peer.py SYSTEM SECONDS QUICK PROBE...

First comes {"version": ..., "due": the probes that this system has}, then {"started": true}, then
a line for each probe, {"probe": name, "values": {metric: number}} or {"probe": name, "skip":
reason}, and at last {"end": true}. Only the standard library and the package `systems` beside
this file are needed, and the environment must name this file's directory in PYTHONPATH so that
the processes a system starts can import `systems` too.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import IO, Any

PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _private_stdout() -> IO[str]:
    """The real standard output; whatever else is printed to it goes to standard error."""
    sys.stdout.flush()
    real: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return real


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:200]


def _say(out: IO[str], **message: Any) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _measure(out: IO[str], probe: Any, name: str, plan: Any) -> None:
    begin = time.perf_counter()
    try:
        values = probe(plan)
    except Exception as error:
        traceback.print_exc()
        _say(out, probe=name, skip=_reason(error))
        return
    if not isinstance(values, dict):
        values = {name: values}
    _say(out, probe=name, values=values, took=round(time.perf_counter() - begin, 2))


def main(argv: list[str]) -> int:
    """Measure what the arguments name."""
    _die_with_parent()
    out = _private_stdout()
    name, seconds, quick, *wanted = argv
    system = importlib.import_module(f"systems.{name}").system()
    probes = importlib.import_module("systems.generic").probes_of(system)
    settle = importlib.import_module("systems.processes").settle
    plan = importlib.import_module("systems.plan").Plan(float(seconds), quick == "1")
    wanted = [probe for probe in wanted if probe in probes]
    _say(out, version=system.version, due=wanted)
    if "startup" in wanted:
        wanted.remove("startup")
        _measure(out, probes["startup"], "startup", plan)
    try:
        if wanted:
            system.start()
            system.warm()
        _say(out, started=True)
        for probe in wanted:
            settle()
            _measure(out, probes[probe], probe, plan)
            gc.collect()
        _say(out, end=True)
    finally:
        system.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
