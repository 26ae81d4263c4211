"""A machine that is suddenly not there: a network of our own, which is switched off.

Nothing refuses and nothing is closed then; only time tells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
OWN_NETWORK = ["unshare", "--map-root-user", "--net"]


def allowed() -> bool:
    """Whether this machine lets its users have networks of their own."""
    try:
        tried = subprocess.run(
            [*OWN_NETWORK, "ip", "link", "set", "lo", "up"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not allowed(), reason="no network namespaces here")

HEAD = """
import subprocess, sys, time
from freehold.io import net, tls
from freehold.proc.probe import SILENT, Probe
from stations import Station, drive

def network(state):
    subprocess.run(["ip", "link", "set", "lo", state], check=True)

net.KEEP_IDLE = net.KEEP_INTERVAL = net.SILENCE_MAX = 1
network("up")
tls.make_certificate(sys.argv[1])
"""

PLAIN = (
    HEAD
    + """
near, far, third = Station(), Station(), Station()
address = far.open(sys.argv[1])
peers = [station.call(address) for station in (near, third)]
drive(near, far, third, until=lambda: len(far.names) == 2)
drive(near, far, third, until=lambda: near.machine.ups and third.machine.ups)
network("down")
near.dial_timeout = 0.5
start = time.monotonic()
verdicts = []
near.say(peers[0], "into the void")
lost = near.call(address)
Probe(near, address, b"", 0.5, lambda verdict, now: verdicts.append(verdict))
assert time.monotonic() - start < 0.3  # nothing has waited
drive(near, far, third, until=lambda: lost in near.machine.downs and verdicts, within=3)
assert verdicts == [SILENT], verdicts
drive(near, far, third, until=lambda: peers[0] in near.machine.downs, within=8)
drive(near, far, third, until=lambda: peers[1] in third.machine.downs, within=8)  # it said nothing
drive(near, far, third, until=lambda: len(far.machine.downs) == 2, within=8)
for station in (near, far, third):
    assert not station._open_ports
    station.close()
"""
)

LASTING = (
    HEAD
    + """
one, two = Station(), Station()
for number, station in enumerate((one, two)):
    station.kind = "worker"
    station.home = bytes([number] * 8)
    station.listen_tcp("127.0.0.1", 0, sys.argv[1])
peers = [one.machine.peer(two.machine.id, two.address), two.machine.peer(one.machine.id, "")]
one.say(peers[0], "0")
drive(one, two, until=lambda: two.names)
network("down")
one.dial_timeout = two.dial_timeout = 0.5
for number in range(1, 100):
    one.say(peers[0], str(number))
    two.say(peers[1], str(number))
drive(one, two, until=lambda: one.links and next(iter(one.links)).failures >= 2, within=15)
network("up")
drive(one, two, until=lambda: len(two.names) == 100 and len(one.names) == 99)
assert [int(name) for name in two.names] == [*range(100)]
assert [int(name) for name in one.names] == [*range(1, 100)]
assert not [*one.machine.downs, *two.machine.downs]
for station in (one, two):
    station.close()
"""
)


@pytest.mark.parametrize("code", [PLAIN, LASTING], ids=["plain", "lasting"])
def test_silence_is_noticed(tmp_path: Path, code: str) -> None:
    done = subprocess.run(
        [*OWN_NETWORK, sys.executable, "-W", "error", "-c", textwrap.dedent(code),
         str(tmp_path / "node.pem")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
