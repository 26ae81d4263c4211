"""What the dead have owned, and who owns it now.

When a process dies, its node becomes the owner of what others still hold of it; when a node dies,
one of the living, which all of them choose alike (``adopter_of``), becomes that for all its
processes.  The rules:

1. Everyone who might hold something says once what it holds: processes to their node (HELD), each
   node to the adopter (ESTATE_HELD), together with what it stores of the dead.  After the death of
   a process those are the nodes with which it had to do (``node.neighbours``), after that of a node
   they are all.  Whoever dies before it has answered is not waited for.  A process that is silent
   for too long is not waited for either, but holds everything until it speaks: it may be reading
   that in place (``late``).  What a node says too late is adopted then; until then nothing is freed
   there.
2. When all have answered, the adopter owns what is both held and stored, with one ticket for each
   holder, and what is inside of that; every node frees the rest of what it stores of the dead
   (ESTATE).
3. A process that ends in good order leaves its small values, too (BEQUEST).
4. From then on the adopter is an owner like any other, as far as these values go
   (``node.adoptions``).  What it is asked for and does not have is made again if somebody can
   (``node.revivals``), and else ends in ``OwnerDied``.
5. What the dead held of others is not lost at once either: its owners make the heir the holder when
   they answer (``lent``).  The heir keeps what it needs (``node.loans``), registers those to whom
   the dead had handed references before it could say so (``given``), and then releases the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.node.copies import Copies
from freehold.core.node.estate import Estate
from freehold.core.node.store import Store
from freehold.core.node.succession import Succession
from freehold.core.node.workers import Workers

Told = tuple[Peer, tuple[list[Any], ...], list[bytes]]  # what a node adds to ``Estate.lists``


def adopter_of(node: bytes, living: Iterable[bytes]) -> bytes:
    """Which of the living adopts what the processes of a dead node owned."""
    return max(living, key=lambda other: blake2b(other + node, digest_size=8).digest())


class Estates(Succession):
    """The estates of one node."""

    def __init__(self, machine: Machine, store: Store, workers: Workers) -> None:
        super().__init__(machine, store, workers)
        self.copies: Copies  # of this node; set by it
        self.open: dict[bytes, Estate] = {}
        self.heirs: dict[bytes, bytes] = {}  # dead, of whom something is stored here -> the adopter
        self.settled_with: dict[bytes, list[bytes]] = {}  # an open estate -> whose it settles too
        self.late: dict[bytes, tuple[Peer | None, list[bytes]]] = {}  # key -> adopter, the silent
        self.ahead: dict[bytes, list[Told]] = {}  # before ``begin``
        self.carried: dict[bytes, list[bytes]] = {}  # adopter that has died -> whose it did not get
        self.trusted: Callable[[bytes, Peer | None], list[list[Any]]]  # held by this node itself
        machine.on(
            {
                m.HELD: self.on_held,
                m.ESTATE_HELD: self.on_estate_held,
                m.ESTATE: self.on_estate,
            }
        )

    # -- collecting -------------------------------------------------------------------------------
    def begin(
        self,
        key: bytes,
        asked: set[bytes],
        nodes: set[bytes],
        adopter: Peer | None = None,
        procs: Iterable[bytes] = (),
    ) -> None:
        """A process, or a node with its processes, is dead; ``asked`` are to answer with HELD."""
        estate = self.open[key] = Estate(key, asked, adopter, self.machine.now)
        estate.nodes = nodes
        estate.dead += [*procs, *self.carried.pop(key, [])]
        estate.held += self.trusted(key, adopter)
        for peer, lists, silent in self.ahead.pop(key, ()):
            self._told(estate, peer, lists, silent)
        self._advance(estate)

    def on_held(
        self,
        peer: Peer,
        now: float,
        dead: bytes,
        refs: list[list[Any]],
        contexts: list[bytes],
        lent: list[list[Any]],
        given: list[list[Any]],
    ) -> None:
        estate = self.open.get(dead)
        adopter, silent = self.late.get(dead, (None, []))
        if estate is None and peer.id in silent:
            estate = Estate(dead, {peer.id}, adopter, now)
            estate.late = True
            estate.silent = [who for who in silent if who != peer.id]
        if estate is None:
            return
        if peer.id in estate.asked:
            estate.asked.discard(peer.id)
            estate.held += [[id, ticket, peer.id, *flags] for id, ticket, *flags in refs]
            estate.contexts += [[context, peer.id] for context in contexts]
            estate.lent += lent
            estate.given += [[*fields, peer.id] for fields in given]
        self._advance(estate)

    def on_estate_held(
        self, peer: Peer, now: float, dead: bytes, held: list[Any], contexts: list[Any],
        stored: list[Any], lent: list[Any], given: list[Any], silent: list[bytes],
    ) -> None:  # fmt: skip
        if peer.id in self.store.gone:
            return  # it has come back, and does not know yet that it was given up
        estate, lists = self.open.get(dead), (held, contexts, stored, lent, given)
        if estate is None and dead in self.store.gone:
            estate = Estate(dead, set(), None, now)
            estate.late = True
            estate.silent = self.late.get(dead, (None, []))[1]
        if estate is None:
            self.ahead.setdefault(dead, []).append((peer, lists, silent))
            return
        self._told(estate, peer, lists, silent)
        self._advance(estate)

    def _told(
        self, estate: Estate, peer: Peer, lists: tuple[list[Any], ...], silent: list[bytes]
    ) -> None:
        estate.nodes.discard(peer.id)
        estate.silent = [*self._elsewhere(estate.silent, peer), *silent]
        for known, told in zip(estate.lists, lists, strict=True):
            known += told
        held, contexts, _, _, given = lists
        holders = [entry[2] for entry in held] + [entry[1] for entry in contexts]
        holders += [entry[4] for entry in given] + silent
        for holder in holders:
            self.revivals.homes[holder] = peer.id
        if holders:
            self.watch(peer.id)

    def _elsewhere(self, silent: list[bytes], peer: Peer) -> list[bytes]:
        """Those of them who are not that node, or live there."""
        return [who for who in silent if self.revivals.homes.get(who) != peer.id]

    def _advance(self, estate: Estate) -> None:
        """Go on when everyone who is asked here has answered."""
        if estate.asked or not (estate.late or self.open.get(estate.key) is estate):
            return
        heir = estate.adopter
        if heir is not None:
            estate.lent += self._lend(estate.dead, heir)
            estate.stored += self._mine(estate)
            estate.held += self.loans.move(self.settled_by(estate.key), heir)
            self.machine.send(heir, m.ESTATE_HELD, estate.key, *estate.lists, estate.silent)
            self._close(estate)
        elif not estate.nodes:
            estate.stored += self._mine(estate)
            self._adopt(estate)

    def _lend(self, dead: list[bytes], heir: Peer) -> list[list[Any]]:
        """Make the heir the holder of what the dead held of this node's own."""
        lent = []
        for id, entry in self.adopted.items():
            for ticket in [ticket for ticket, who in entry.tickets.items() if who in dead]:
                entry.tickets[ticket] = heir.id
                lent.append([id, self.machine.id, self.address, ticket])
        if lent:
            self.revivals.homes[heir.id] = heir.id  # until it dies itself
        return lent

    def _stored(self, estate: Estate) -> list[list[Any]]:
        """What is stored here of the dead one, and of those whose adopter it was."""
        heirs = self.heirs
        keys = [estate.key, *self._left_to(estate.key)]
        self.settled_with[estate.key] = keys
        found = []
        for key in keys:
            objects = self.store.owned_by(key)
            actors = self.abandoned.of(key)
            heirs.pop(key, None)
            here = objects or actors or self.copies.kept_of(key)
            if here and estate.adopter is not None:
                heirs[key] = estate.adopter.id
            found += [[actor, owner, place, []] for actor, owner, place in actors]
            found += [[own.id, own.owner, own.place, own.inside] for own in objects]
        return found

    def settled_by(self, key: bytes) -> list[bytes]:
        """Whose estates are settled with that one."""
        return self.settled_with.get(key, [key])

    def _left_to(self, adopter: bytes) -> list[bytes]:
        """The dead of whom something is stored here that it was to adopt."""
        return [dead for dead, heir in self.heirs.items() if heir == adopter]

    def _mine(self, estate: Estate) -> list[list[Any]]:
        """The same, with the copies that are kept here."""
        if estate.late:
            return []  # that has been said
        found = self._stored(estate)
        for key in self.settled_with[estate.key]:
            for copy in self.copies.kept_of(key):
                found.append([copy.id, copy.owner, self.copies.place(copy), []])
        return found

    def _close(self, estate: Estate) -> None:
        """Everything has been said; after the last one, do what had to wait for that."""
        self.open.pop(estate.key, None)
        self.late.pop(estate.key, None)
        if estate.silent:
            self.late[estate.key] = (estate.adopter, estate.silent)
        for dead in estate.dead:
            self.forget_holder(dead)
        if not self.open:
            for id, entry in list(self.adopted.items()):
                self._settle(id, entry)
            self._answer_all()

    def _adopt(self, estate: Estate) -> None:
        """Everyone has answered: own what is to be owned; everything else is free."""
        kept = self.take_over(estate, self.late.get(estate.key, (None, []))[1])
        told = {place[3] for _, _, place, _ in estate.stored} - {self.machine.id}
        for node in sorted(told):
            if node in self.machine.peers:
                self.machine.send(self.machine.peers[node], m.ESTATE, estate.key, kept)
        if not estate.late:
            self.free_others(estate.key, kept, self.machine.id, "")
        self._close(estate)

    def forget(self, dead: bytes, procs: Iterable[bytes] = ()) -> None:
        """It died before this node had to do with it: the adopter has never heard of this one."""
        self.free_others(dead, [], b"", "")
        for proc in (dead, *procs):
            self.forget_holder(proc)

    def free_others(self, dead: bytes, kept: list[bytes], heir: bytes, address: str) -> None:
        """Free what is here of the dead, but for what the heir has adopted."""
        for key in self.settled_with.pop(dead, [dead]):
            self.store.free_others(key, set(kept))
            for actor, owner, _ in self.abandoned.of(key):
                if actor not in kept:
                    self.abandoned.end(actor, owner)
            self.copies.inherit(key, set(kept), heir, address)

    def on_timer(self, now: float) -> None:
        """Answer what has waited long enough for an estate to be opened, or to be closed."""
        for estate in list(self.open.values()):
            if now >= estate.until:
                if estate.asked:
                    estate.silent += sorted(estate.asked)
                    estate.asked.clear()
                else:
                    estate.nodes.clear()
                self._advance(estate)
        if now >= self.patience:
            self._answer_all()

    def deadline(self) -> float:
        """When ``on_timer`` is due."""
        return min([self.patience, *(estate.until for estate in self.open.values())])

    def on_estate(self, peer: Peer, now: float, dead: bytes, kept: list[bytes]) -> None:
        """The adopter has decided: free the rest of what is stored here of the dead."""
        if peer.id in self.store.gone:
            return  # whoever adopts after it decides
        self.free_others(dead, kept, peer.id, peer.address)

    # -- further deaths ---------------------------------------------------------------------------
    def on_death(self, dead: bytes) -> None:
        """A process died: it answers nothing; what it held goes with its estate."""
        self.revivals.on_death(dead)
        self.forget_actor(dead)
        for estate in list(self.open.values()):
            estate.asked.discard(dead)
            self._advance(estate)
        for key, (adopter, silent) in list(self.late.items()):
            if dead in silent:
                self._still_silent(key, adopter, [who for who in silent if who != dead])

    def _still_silent(self, key: bytes, adopter: Peer | None, silent: list[bytes]) -> None:
        """Those who are still silent; the others have died."""
        self.late[key] = (adopter, silent)
        if not silent:
            del self.late[key]

    def on_node_death(self, node: bytes) -> None:
        """A node died, with what lay there."""
        for proc in self.revivals.living_on(node):
            self.on_death(proc)
        for estate in list(self.open.values()):
            estate.nodes.discard(node)
            estate.stored = [entry for entry in estate.stored if entry[2][3] != node]
            if estate.adopter is not None and estate.adopter.id == node:
                del self.open[estate.key]  # it becomes part of the adopter's own estate
                for dead in [estate.key, *self._left_to(estate.key)]:
                    self.heirs[dead] = node
                self.carried.setdefault(node, []).extend(estate.dead)
            else:
                self._advance(estate)
        for key, (adopter, _) in list(self.late.items()):
            if adopter is not None and adopter.id == node:
                del self.late[key]  # they will be asked about the adopter
        self.forget_places(node)
