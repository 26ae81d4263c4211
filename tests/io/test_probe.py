"""Probes: alive, refused and silent, each for its own reasons; and the alarms beneath."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from freehold.core.machine import NEVER
from freehold.proc.alarms import Alarms
from freehold.proc.probe import ALIVE, REFUSED, SILENT, Probe
from stations import LOCAL, Make, Station, both, drive, full_listener, place


def ask(near: Station, address: str, id: bytes, *others: Station, within: float = 5.0) -> str:
    """The verdict; there is exactly one, and nothing is left open."""
    answers: list[str] = []
    watched = len(near.ports)
    Probe(near, address, id, within, lambda verdict, now: answers.append(verdict))
    assert not answers  # never from inside
    drive(near, *others, until=lambda: answers)
    for _ in range(20):
        drive(near, *others, until=lambda: True)
        near.poll_once()
    assert len(answers) == 1
    assert len(near.ports) == watched
    assert not near._open_ports
    assert not near.machine.downs
    return answers[0]


@both
def test_alive_is_who_says_the_right_id(make: Make, pem: str, secure: bool) -> None:
    near, far = make(tls=secure), make(tls=secure)
    address = far.open(pem)
    assert ask(near, address, far.machine.id, far) == ALIVE
    assert ask(near, address, b"", far) == ALIVE
    assert ask(near, address, b"earlier.", far) == REFUSED  # the port is another's now
    drive(far, until=lambda: not far._open_ports)
    assert not far.machine.ups  # who only asks is nobody's peer
    assert not far.machine.downs
    assert not far.refused


def test_by_path_too(make: Make, tmp_path: Path) -> None:
    near, far = make(), make()
    path = str(tmp_path / "far.sock")
    far.listen(path)
    assert ask(near, path, far.machine.id, far) == ALIVE
    far.close()
    assert ask(near, path, far.machine.id) == REFUSED
    assert ask(near, str(tmp_path / "nothing"), b"") == REFUSED


def test_refused_is_who_does_not_belong(make: Make, pem: str) -> None:
    near, stranger, plain = make(), make(b"w" * 32), make(tls=False)
    assert ask(near, stranger.open(pem), b"", stranger) == REFUSED
    assert ask(near, plain.open(pem), b"", plain) == REFUSED
    address = stranger.address
    stranger.close()
    assert ask(near, address, b"") == REFUSED


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_refused_is_who_hangs_up_or_speaks_otherwise(make: Make, answer: bytes) -> None:
    near = make()
    answers: list[str] = []
    with socket.create_server((LOCAL, 0)) as listener:
        address = f"||{LOCAL}:{listener.getsockname()[1]}"
        for linger in (0, 1):  # an end, and a reset
            Probe(near, address, b"", 5.0, lambda verdict, now: answers.append(verdict))
            with listener.accept()[0] as sock:
                sock.sendall(answer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
            drive(near, until=lambda: answers)
            assert answers.pop() == REFUSED


def test_silent_is_who_does_not_answer(make: Make, pem: str) -> None:
    near, stopped = make(), make()
    with full_listener() as address:
        assert ask(near, address, b"", within=0.2) == SILENT
    assert ask(near, stopped.open(pem), stopped.machine.id, within=0.2) == SILENT
    assert ask(near, "||no.such.name:80", b"") == SILENT  # which proves nothing
    assert place(stopped.address)


def test_a_probe_may_be_taken_back(make: Make, pem: str) -> None:
    near, far = make(), make()
    answers: list[str] = []
    probe = Probe(near, far.open(pem), b"", 0.01, lambda verdict, now: answers.append(verdict))
    probe.cancel()
    probe.cancel()
    assert not near._open_ports
    assert ask(near, far.address, b"", far) == ALIVE  # long after the other's time
    assert not answers


def test_a_host_that_closes_ends_its_probes(make: Make) -> None:
    near = make()
    with full_listener() as address:
        Probe(near, address, b"", 5.0, lambda verdict, now: pytest.fail("it is closed"))
        near.close()
        assert not near._open_ports


# -- alarms ----------------------------------------------------------------------------------------
def test_alarms_come_in_order_and_once() -> None:
    alarms, heard = Alarms(), list[str]()
    for when, name in ((2.0, "b"), (1.0, "a"), (2.0, "c"), (3.0, "d")):
        alarms.set(when, lambda now, name=name: heard.append(name))  # type: ignore[misc]
    assert alarms.deadline() == 1.0
    alarms.run(0.5)
    assert not heard
    alarms.run(2.0)
    alarms.run(2.0)
    assert heard == ["a", "b", "c"]
    assert alarms.deadline() == 3.0


def test_a_cancelled_alarm_is_silent() -> None:
    alarms, heard = Alarms(), list[float]()
    first = alarms.set(1.0, heard.append)
    second = alarms.set(1.0, heard.append)
    alarms.set(1.0, lambda now: second.cancel())
    third = alarms.set(1.0, heard.append)
    alarms.set(0.5, lambda now: third.cancel())
    first.cancel()
    alarms.run(1.0)
    assert heard == [1.0]
    assert alarms.deadline() == NEVER


def test_an_alarm_that_is_set_by_another_waits_for_the_next_time() -> None:
    alarms, heard = Alarms(), list[float]()
    alarms.set(1.0, lambda now: alarms.set(0.0, heard.append) and None)
    alarms.run(1.0)
    assert not heard
    assert alarms.deadline() == 0.0
    alarms.run(1.5)
    assert heard == [1.5]
