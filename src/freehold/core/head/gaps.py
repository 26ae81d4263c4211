"""Gaps: two members that cannot reach each other, or could not, though the head reaches both.

Nobody is silent then, so nobody would ever be declared dead, and whoever waits for an answer across
the gap would wait for ever.  The rule: *of two members that need and do not reach each other, one
goes.*  It is declared dead like any other; what it had is made again elsewhere, or is an error.

::

    a link breaks, and dialling fails again and again (``node.suspects``): REACH, a complaint
      -> the head has others dial both (WITNESS, REACH): whom do *they* not reach?
      -> SETTLE later, if the complaint has not been taken back: one of the two goes

*Which one*: whom more members do not reach; a member that has made another go before, and keeps it
out, counts that as one more.  Among equals the one without a driver, then one that is retiring,
then the one of the greater id.  Who is not connected, or has not reported lately, is in worse
trouble, which is the roll's affair (``head.roll``).  When that has passed, the others get TRUCE to
find it and take back what they have said, and the witnesses are asked again.

*Declared dead.*  A node that has no head judges by itself (``node.suspects``), and what it has told
its processes cannot be taken back: a member that has declared dead another one that lives cannot
live with it any more, though they may reach each other again.  So of those two, too, one goes, when
all have had time to say whom they have declared dead.  Which of them was cut off is told by the
others: whoever was, has lost many, and was lost by many.  But who lost a head that was there all
the while was cut off from it, and goes.

*It cannot flap.*  The host of who has gone is remembered, with who has stayed.  A node that comes
from there is let in as soon as the other one reaches it, or is no member any more; until then it
waits.  And one goes at a time: the other complaints get another TRUCE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from freehold.core import messages as m
from freehold.core.address import host_port_of
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import MEMBER, Standing
from freehold.errors import ProtocolError

SETTLE = 0.3  # of unreachable_s, which a probe must fit in: from the complaint to the decision
TRUCE = 0.7  # of unreachable_s: more than two dials take
WITNESSES_MAX = 5
Key = tuple[bytes, bytes]  # who says it, and whom it does not reach
Bury = Callable[[Standing, float, str], None]
Join = Callable[[Peer, float, dict[str, Any]], None]


class Complaint:
    """What one member says about another.

    Attributes:
        due: when to go on with it.
        heard: the witnesses have been asked; none are, if it has declared the other one dead.
        final: it has declared the other one dead.
        astray: it did so while it had lost this head, which was there.
    """

    __slots__ = ("astray", "due", "final", "heard")

    def __init__(self, due: float, *, final: bool = False, astray: bool = False) -> None:
        self.due = due
        self.heard = self.final = final
        self.astray = astray


class Waiting(NamedTuple):
    """A node that is not let in yet."""

    peer: Peer
    info: dict[str, Any]
    host: str


class Gaps:
    """The complaints of the members about each other.

    Args:
        machine: the head.
        nodes: the members.
        has_driver: whether a job's driver runs on that node.
        bury: declare a member dead.
        join: let a node join.
        unreachable_s: as for the head.
    """

    def __init__(
        self,
        machine: Machine,
        nodes: dict[bytes, Standing],
        *,
        has_driver: Callable[[bytes], bool],
        bury: Bury,
        join: Join,
        unreachable_s: float,
    ) -> None:
        self.machine = machine
        self.nodes = nodes
        self.has_driver = has_driver
        self.bury = bury
        self.join = join
        self.unreachable_s = unreachable_s
        self.complaints: dict[Key, Complaint] = {}
        self.evidence: dict[Key, None] = {}  # what witnesses have said: a gap, but no complaint
        self.stayed: dict[str, bytes] = {}  # host of one who has gone -> the other one
        self.waiting: dict[bytes, Waiting] = {}  # from such hosts
        self._ask_at = NEVER  # when to have those who wait dialled again
        self._truce_until = 0.0  # nobody goes before
        machine.on({m.REACH: self.on_reach})

    # -- what members say -------------------------------------------------------------------------
    def on_reach(self, peer: Peer, now: float, node: bytes, reached: bool, asked: bool) -> None:
        sender = self.nodes.get(peer.id)
        if sender is None or sender.peer is not peer or sender.phase != MEMBER:
            return
        key = peer.id, node
        if asked and node in self.waiting:
            if reached and self.stayed.get(self.waiting[node].host) == peer.id:
                del self.stayed[self.waiting[node].host]
                self._let_in(now)
        elif reached:
            self.evidence.pop(key, None)
            if not asked and key in self.complaints and not self.complaints[key].final:
                del self.complaints[key]
        elif self._is_member(node) and node != peer.id:
            if asked:
                self.evidence[key] = None
            elif key not in self.complaints:
                self.complaints[key] = Complaint(max(now, self._truce_until))

    def on_declared(self, sender: Standing, node: Standing, now: float) -> None:
        """A member says that it has declared another one dead; it says so at each hello."""
        known = self.complaints.get((sender.id, node.id))
        if known is None or not known.final:
            due = max(now + self.unreachable_s * SETTLE, self._truce_until)
            complaint = Complaint(due, final=True, astray=sender.hellos > 1)
            self.complaints[sender.id, node.id] = complaint

    def _is_member(self, id: bytes) -> bool:
        node = self.nodes.get(id)
        return node is not None and node.phase == MEMBER

    # -- decisions --------------------------------------------------------------------------------
    def _go_on(self, key: Key, now: float) -> None:
        """A complaint is due: hear the witnesses, then decide."""
        complaint, pair = self.complaints[key], [self.nodes[id] for id in key]
        late = now - self.unreachable_s / 2
        troubled = any(node.peer is None or node.seen < late for node in pair)
        if complaint.final and (troubled or self._awaits_anybody()):
            complaint.due = now + self.unreachable_s * SETTLE
        elif troubled:
            self._put_off(key, now)
        elif not complaint.heard:
            complaint.heard, complaint.due = True, now + self.unreachable_s * SETTLE
            self._ask_witnesses(key)
        else:
            self._part(now, *pair)

    def _awaits_anybody(self) -> bool:
        """Whether a member has not come to this head yet, who may have declared others dead."""
        return any(node.phase == MEMBER and not node.hellos for node in self.nodes.values())

    def _put_off(self, key: Key, now: float) -> None:
        complaint = self.complaints[key]
        complaint.heard, complaint.due = False, now + self.unreachable_s * TRUCE
        self.evidence = {old: None for old in self.evidence if not set(key) & set(old)}

    def _ask_witnesses(self, key: Key) -> None:
        others = [
            node.peer
            for node in self.nodes.values()
            if node.id not in key and node.phase == MEMBER and node.peer is not None
        ]
        for witness in others[:WITNESSES_MAX]:
            for id in key:
                self.machine.send(witness, m.WITNESS, id, self.nodes[id].address)

    def _part(self, now: float, one: Standing, other: Standing) -> None:
        """One of the two goes."""
        goes, stays = (one, other) if self._blame(one) > self._blame(other) else (other, one)
        host, name = _host_of(goes.address), stays.id.hex()[:8]
        if self._is_final(goes, stays):
            text = f"it was cut off, and declared node {name} dead, which lives"
        elif self._is_final(stays, goes):
            text = f"node {name} declared it dead, while there was no head"
        else:
            text = f"it and node {name} cannot reach each other; the head reaches both"
            if host:
                self.stayed[host] = stays.id
        self.bury(goes, now, text)
        self._truce_until = now + self.unreachable_s * TRUCE
        for key, complaint in self.complaints.items():
            if not complaint.final:
                self._put_off(key, now)

    def _is_final(self, one: Standing, other: Standing) -> bool:
        complaint = self.complaints.get((one.id, other.id))
        return complaint is not None and complaint.final

    def _blame(self, node: Standing) -> tuple[bool, int, bool, bool, bytes]:
        gaps = (*self.complaints, *self.evidence)
        others = {id for key in gaps if node.id in key for id in key if id != node.id}
        many = len(others) + sum(id == node.id for id in self.stayed.values())  # kept out
        mine = [complaint for key, complaint in self.complaints.items() if key[0] == node.id]
        astray = any(complaint.astray for complaint in mine)
        return astray, many, not self.has_driver(node.id), node.retiring, node.id

    def forget(self, node: Standing, now: float) -> None:
        """It is no member any more: what was said by it, and about it, does not matter."""
        self.complaints = {key: one for key, one in self.complaints.items() if node.id not in key}
        self.evidence = {key: None for key in self.evidence if node.id not in key}
        self.stayed = {host: id for host, id in self.stayed.items() if id != node.id}
        self._let_in(now)

    def renew(self, node: Standing, now: float) -> None:
        """The member says hello to this head, and will say (again) of whom it complains."""
        first, due = node.hellos == 1, now + self.unreachable_s * SETTLE
        for key, complaint in list(self.complaints.items()):
            if complaint.final and first:
                complaint.due = max(complaint.due, due)
            elif not complaint.final and key[0] == node.id:
                del self.complaints[key]

    # -- who comes from where one had gone --------------------------------------------------------
    def keeps_out(self, peer: Peer, now: float, info: dict[str, Any]) -> bool:
        """Whether that node is to wait; then it joins later."""
        host = _host_of(peer.address)
        if host not in self.stayed:
            return False
        self.waiting[peer.id] = Waiting(peer, info, host)
        self._ask_at = now
        return True

    def hang_up(self, peer: Peer) -> None:
        """A connection is closed: it may have been of one who waits."""
        if peer.id in self.waiting and self.waiting[peer.id].peer is peer:
            del self.waiting[peer.id]

    def _let_in(self, now: float) -> None:
        free = [id for id, one in self.waiting.items() if one.host not in self.stayed]
        for id in free:
            one = self.waiting.pop(id)
            self.join(one.peer, now, one.info)

    def _have_dialled(self, now: float) -> None:
        """Ask those who have stayed whether they reach those who wait."""
        self._ask_at = now + self.unreachable_s / 2 if self.waiting else NEVER
        for id, one in self.waiting.items():
            node = self.nodes.get(self.stayed[one.host])
            if node is not None and node.peer is not None:
                self.machine.send(node.peer, m.WITNESS, id, one.peer.address)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """The next decision, or question."""
        if not self.complaints:
            return self._ask_at
        return min(self._ask_at, *(complaint.due for complaint in self.complaints.values()))

    def on_timer(self, now: float) -> None:
        """See to what is due, one by one."""
        for key in list(self.complaints):
            if key in self.complaints and now >= self.complaints[key].due:
                self._go_on(key, now)
        if not self.complaints:
            self.evidence.clear()
        if now >= self._ask_at:
            self._have_dialled(now)

    def check(self) -> None:
        """All are about members, and nobody waits for nothing."""
        assert all(id in self.nodes for key in (*self.complaints, *self.evidence) for id in key)
        assert all(one.host in self.stayed for one in self.waiting.values())
        assert not self.waiting or self._ask_at < NEVER


def _host_of(address: str) -> str:
    """Where it is dialled, without the port; '' if it has no host."""
    try:
        place = host_port_of(address)
    except ProtocolError:
        return ""
    return place[0] if place is not None else ""
