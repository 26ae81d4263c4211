"""What is being collected about one dead process, or all of one dead node (``node.estates``)."""

from __future__ import annotations

from typing import Any

from freehold.core.machine import Peer

ANSWER_MAX = 4.0  # seconds for other nodes to answer: who is silent for less may yet be alive
HELD_MAX = 2.0  # seconds for processes to answer their node, which says so if they do not


class Estate:
    """What is being collected about one dead process, or all of one dead node."""

    __slots__ = (
        "adopter", "asked", "began", "contexts", "dead", "given", "held", "key", "late", "lent",
        "nodes", "silent", "stored",
    )  # fmt: skip

    def __init__(self, key: bytes, asked: set[bytes], adopter: Peer | None, now: float) -> None:
        self.key = key
        self.dead = [key]  # with the processes of a node
        self.began = now
        self.silent: list[bytes] = []  # processes that have been given up
        self.late = False  # it was adopted already, but for what these have to say
        self.asked = asked  # processes of this node that have not answered
        self.adopter = adopter  # to be told; None: this node
        self.nodes: set[bytes] = set()  # that have not answered, if this node is the adopter
        self.held: list[list[Any]] = []  # [id, ticket, holder, can revive it, of another program]
        self.contexts: list[list[bytes]] = []  # [context, process]
        self.stored: list[list[Any]] = []  # [id, owner, place, inside]
        self.lent: list[list[Any]] = []  # [id, owner, address, ticket] of the dead one's tickets
        self.given: list[list[Any]] = []  # [id, owner, address, ticket, holder] to be registered

    @property
    def until(self) -> float:
        """When those are given up that have not answered."""
        return self.began + (HELD_MAX if self.asked else ANSWER_MAX)

    @property
    def lists(self) -> tuple[list[Any], ...]:
        """All that is collected, in the order of ESTATE_HELD."""
        return self.held, self.contexts, self.stored, self.lent, self.given
