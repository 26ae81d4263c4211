"""Which nodes the bundles of a placement group go to: pure functions of what is free.

``PACK`` takes as few nodes as it can, ``SPREAD`` as many; ``STRICT_PACK`` takes one node or none,
``STRICT_SPREAD`` a node for each bundle or none.  The first two are a depth-first search: largest
bundle first, best node first, back where it fails.  Its first descent is the usual greedy rule;
going back finds what that misses.  Packing is NP-hard, so the search goes back only until it has
looked at ``LOOKS_MAX`` nodes more than one descent needs, and is then taken to have failed.  A
strict spread is a matching of bundles and nodes, and needs no such limit.
"""

from __future__ import annotations

from freehold.core.member import EPSILON, Member, Resources, fits

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
LOOKS_MAX = 20_000
Free = dict[bytes, Resources]


def place(
    bundles: list[Resources],
    strategy: str,
    free: Free,
    taken: list[bytes] | None = None,
) -> list[bytes] | None:
    """The node for each bundle, or None if there is no room for all of them together.

    Args:
        bundles: what each needs.
        strategy: one of ``STRATEGIES``.
        free: node -> what it has for them, in the order of preference among equals.
        taken: where other bundles of the group are already.
    """
    taken = taken or []
    if strategy == "STRICT_PACK":
        return _together(bundles, free, taken)
    if strategy == "STRICT_SPREAD":
        return _apart(bundles, {id: have for id, have in free.items() if id not in taken})
    search = _Search(bundles, strategy == "SPREAD", free, taken)
    return search.placed if search.find() else None


def usable(members: list[Member], totals: bool = False) -> Free:
    """What bundles may be made of on each node: bundles inside bundles there are not."""
    return {
        member.id: {
            name: amount
            for name, amount in (member.total if totals else member.free).items()
            if "/" not in name
        }
        for member in members
        if not member.retiring
    }


def taking(have: Resources, needs: Resources) -> Resources:
    """What is left."""
    return {**have, **{name: have.get(name, 0.0) - amount for name, amount in needs.items()}}


def _together(bundles: list[Resources], free: Free, taken: list[bytes]) -> list[bytes] | None:
    needs: Resources = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            needs[name] = needs.get(name, 0.0) + amount
    room = [id for id, have in free.items() if fits(needs, have) and (not taken or id == taken[0])]
    if not room:
        return None
    tightest = min(room, key=lambda id: sum(free[id].get(name, 0.0) for name in needs))
    return [tightest] * len(bundles)


def _apart(bundles: list[Resources], free: Free) -> list[bytes] | None:
    """A matching, by augmenting paths (Kuhn)."""
    holder: dict[bytes, int] = {}
    room = [[id for id, have in free.items() if fits(bundle, have)] for bundle in bundles]
    for first in range(len(bundles)):
        reached: dict[bytes, int] = {}  # node -> the bundle that would like to have it
        queue = [first]
        end = b""
        for index in queue:
            for id in room[index]:
                if id not in reached:
                    reached[id] = index
                    if id not in holder:
                        end = id
                        break
                    queue.append(holder[id])
            if end:
                break
        if not end:
            return None
        while end:  # each on the path takes the node it likes, and leaves the one it had
            index = reached[end]
            before = next((id for id, held in holder.items() if held == index), b"")
            holder[end] = index
            end = before if index != first else b""
    where = {index: id for id, index in holder.items()}
    return [where[index] for index in range(len(bundles))]


class _Search:
    """Depth-first, with a limit."""

    def __init__(
        self, bundles: list[Resources], spread: bool, free: Free, taken: list[bytes]
    ) -> None:
        self.bundles = bundles
        self.spread = spread
        self.free = dict(free)
        self.used = {id: taken.count(id) for id in free}
        self.order = sorted(range(len(bundles)), key=lambda i: -sum(bundles[i].values()))
        self.placed = [b""] * len(bundles)
        self.looks = 0  # how many nodes were looked at
        self.looks_max = len(bundles) * len(free) + LOOKS_MAX

    def find(self) -> bool:
        """Place every bundle; False if that fails."""
        trail: list[list[bytes]] = []  # of each bundle in order: the nodes that are still untried
        while len(trail) < len(self.order):
            trail.append(self._candidates(self.order[len(trail)]))
            while not trail[-1] or self.looks > self.looks_max:
                trail.pop()
                if not trail:
                    return False
                self._undo(self.order[len(trail) - 1])
            self._put(self.order[len(trail) - 1], trail[-1].pop(0))
        return True

    def _candidates(self, index: int) -> list[bytes]:
        """Where the bundle fits, the best first; of nodes that are alike one is enough."""
        self.looks += len(self.free)
        bundle = self.bundles[index]
        sign = 1 if self.spread else -1
        room = [id for id, have in self.free.items() if fits(bundle, have)]
        room.sort(key=lambda id: (sign * self.used[id], sign * self._left(id, bundle)))
        alike: dict[tuple[object, ...], bytes] = {}
        for id in room:
            key = (self.used[id], *sorted(self.free[id].items()))
            alike.setdefault(key, id)
        return list(alike.values())

    def _left(self, id: bytes, bundle: Resources) -> float:
        """The share of the bundle in what is free: small on a node with much room."""
        have = self.free[id]
        return max((need / max(have[n], EPSILON) for n, need in bundle.items() if need), default=0)

    def _put(self, index: int, id: bytes) -> None:
        self.placed[index] = id
        self.used[id] += 1
        self.free[id] = taking(self.free[id], self.bundles[index])

    def _undo(self, index: int) -> None:
        id = self.placed[index]
        self.placed[index] = b""
        self.used[id] -= 1
        back = {name: -amount for name, amount in self.bundles[index].items()}
        self.free[id] = taking(self.free[id], back)
