"""What others borrow outlives its program, actors too: as long as they hold it, and not longer."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import freehold as fh
from cluster.cast import LARGE, outcome
from cluster.ground import Ground
from cluster.processes import eventually

MAKER = """
import os, signal, sys
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
there = cast.there(sys.argv[1])
held = cast.Pair.options(name="held", namespace="all", max_restarts=3, **there)
value = fh.put(bytes([3]) * cast.LARGE)
held = held.remote(bytes([4]) * cast.SMALL, [value])
free = cast.Counter.options(name="free", namespace="all", **there).remote()
print(*fh.get([held.whoami.remote(), free.whoami.remote()], timeout=20), flush=True)
sys.stdin.readline()
fh.shutdown()
"""


@pytest.mark.parametrize("killed", [False, True], ids=["it ends", "it is killed"])
def test_an_actor_that_another_program_holds_outlives_its_maker(
    field: Ground, killed: bool
) -> None:
    argv = [sys.executable, "-c", MAKER, field.node(2)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with field.cluster.machines[1].popen(argv, **pipes) as maker:
        assert maker.stdin is not None
        assert maker.stdout is not None
        assert maker.stdout.readline()
        held = fh.get_actor("held", namespace="all")
        pid = fh.get(held.whoami.remote(), timeout=20)[1]
        free = fh.get(fh.get_actor("free", namespace="all").whoami.remote(), timeout=20)[1]
        if killed:
            maker.send_signal(signal.SIGKILL)
        else:
            maker.stdin.write("\n")
            maker.stdin.flush()
        maker.wait(20)
    eventually(lambda: free not in field.workers(2), what="what nobody holds has ended")
    assert outcome(held.read.remote()) == ("value", (4, 100, 3, LARGE))
    assert outcome(held.work.remote(5)) == ("value", (6, LARGE))
    assert fh.get(held.whoami.remote(), timeout=20)[1] == pid
    with pytest.raises(fh.NameUnknown):  # its name was its maker's
        fh.get_actor("held", namespace="all")
    del held
    eventually(lambda: pid not in field.workers(2), what="its last handle is gone")


def test_it_is_not_made_again_and_its_holders_are_told(field: Ground) -> None:
    argv = [sys.executable, "-c", MAKER, field.node(2)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with field.cluster.machines[1].popen(argv, **pipes) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline()
        held = fh.get_actor("held", namespace="all")
        pid = fh.get(held.whoami.remote(), timeout=20)[1]
        maker.send_signal(signal.SIGKILL)
        maker.wait(20)
    assert fh.get(held.whoami.remote(), timeout=20)[1] == pid
    field.kill_process(pid)
    eventually(lambda: outcome(held.whoami.remote())[0] == "ActorDied", 3.0)
