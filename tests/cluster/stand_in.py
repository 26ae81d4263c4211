"""A stand-in for the ``freehold`` command: processes of the right names, which do nothing.

``start`` starts a node (and a head) that ends on SIGTERM, and prints what the command prints;
``stop`` ends them.  The environment makes it fail: ``FAIL=refused``, or ``MARK=FILE`` with a port
that is taken until the file exists.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

DAEMON = """
import ctypes, signal
ctypes.CDLL(None).prctl(15, {name!r})
print("up", flush=True)
signal.pause()
"""


def main(argv: list[str], prog_name: str) -> None:
    """What the command line does with these arguments."""
    kept = Path(tempfile.gettempdir(), "pids")
    if argv[0] == "stop":
        for pid in json.loads(kept.read_text()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        sys.exit(0)
    mark = Path(os.environ["MARK"])
    if os.environ.get("FAIL") == "refused":
        sys.exit("Error: the head refuses")
    if "--port" in argv and not mark.exists():
        mark.touch()
        sys.exit("Error: the head cannot listen: Address already in use")
    names = [b"freehold-node", b"freehold-head"] if "--head" in argv else [b"freehold-node"]
    kept.write_text(json.dumps([daemon(name) for name in names]))
    if "--head" in argv:
        print("This machine is node 0a, at 127.0.0.1:2.\n")
        print("  freehold start --address 127.0.0.1:1 --token fh1-x", flush=True)
    elif os.environ["FREEHOLD_TOKEN"] == "fh1-x":
        print(f"This machine is node {os.getpid():x} of the cluster at {argv[2]}.", flush=True)
    sys.exit(0)


def daemon(name: bytes) -> int:
    """Start a process of that name, in a session of its own; its pid."""
    argv = [sys.executable, "-c", DAEMON.format(name=name)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process.pid
