"""The table of messages: complete, unambiguous, and handled by those whom it names."""

from __future__ import annotations

import inspect

import pytest

from freehold.core import messages as m
from freehold.core.head.head import Head
from freehold.core.machine import Machine
from freehold.core.messages import MESSAGES, Message
from freehold.core.node.node import Node
from freehold.core.process.process import Process
from freehold.wire import schema

PROCESS = {"process", "caller", "worker", "holder", "owner", "borrower", "driver"}
NEAR = {"spawner", "arena", "store", "prober", "mover", "tool"}
ADOPTED = {"owner"}  # the node takes what is for an owner, since it may be one by adoption
HOST = {"HELLO", "ACK"}  # hosts take it, before any machine does


def machines(role: str) -> list[Machine]:
    process = Process(b"p" * 8, "p")
    node = Node(b"n" * 8, cpus=1.0, arena_bytes=1)
    if role in ADOPTED:
        return [process, node]
    if role == "node":
        return [node]
    if role == "head":
        return [Head(b"h" * 8, entries=[])]
    if role in PROCESS:
        return [process]
    return [node, process] if role == "any" else []


def receivers(message: Message) -> list[str]:
    return message.receiver.split(", ")


def test_opcodes_are_unique_and_in_order() -> None:
    assert [message.op for message in MESSAGES] == list(range(m.OPCODES))
    assert len(set(m.NAMES)) == m.OPCODES == len(schema.FIELDS)
    assert all(getattr(m, message.name) == message.op for message in MESSAGES)


def test_the_protocol_is_versioned() -> None:
    assert isinstance(m.VERSION, int)
    assert m.VERSION >= 1


def test_states_are_numbered_as_they_are_named() -> None:
    assert m.STATES[m.PENDING] == "pending"
    assert m.STATES[m.INLINE] == "inline"
    assert m.STATES[m.SHARED] == "shared"
    assert m.STATES[m.FAILED] == "failed"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_every_message_is_described(message: Message) -> None:
    assert message.doc.endswith(".")
    roles = {*message.sender.split(", "), *receivers(message)}
    assert roles <= PROCESS | NEAR | {"node", "head", "any"}
    for text in message.fields:
        name, _, kind = text.partition(": ")
        assert name.isidentifier()
        assert kind


@pytest.mark.parametrize(
    ("message", "role"),
    [(each, role) for each in MESSAGES if each.name not in HOST for role in receivers(each)],
    ids=lambda value: getattr(value, "name", value),
)
def test_who_is_named_handles_it_with_its_fields(message: Message, role: str) -> None:
    if role in NEAR:
        return  # hosts answer for near things
    for machine in machines(role):
        handler = machine.handlers[message.op]
        assert not handler.__qualname__.startswith("_unexpected"), f"{role} takes no {message.name}"
        parameters = list(inspect.signature(handler).parameters)
        assert len(parameters) == 2 + len(message.fields), (handler, parameters)


def test_nobody_handles_what_is_not_for_it() -> None:
    """What only the node is to get is unexpected in a process and in the head, and so on."""
    (node,), (process,), (head,) = machines("node"), machines("process"), machines("head")
    takes = [
        (node, {"node", "any"} | ADOPTED),
        (process, PROCESS | {"any"}),
        (head, {"head"}),
    ]
    for message in MESSAGES:
        named = set(receivers(message))
        for machine, mine in takes:
            handler = machine.handlers[message.op]
            taken = not handler.__qualname__.startswith("_unexpected")
            assert taken == bool(named & mine) or message.name in HOST, message.name
