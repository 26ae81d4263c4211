"""What user code can do in a cluster, in the simulator's terms: names, groups, kept copies.

It mirrors ``freehold.proc.names``, ``groups`` and ``copies``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from freehold.core.head.groups import SHARE
from freehold.core.messages import FAILED, SHARED
from freehold.core.process.rows import Spec
from freehold.sim.clusterledger import ClusterLedger
from freehold.sim.env import Env
from freehold.sim.handles import Ref
from freehold.sim.ledger import Failure
from freehold.sim.process import Execution, ProcessHost, Wait
from freehold.sim.values import Value

SPACE = "actors/sim"
MEET_TIMEOUT = 10.0
TIMEOUT = 30.0
COPIES_TIMEOUT = 10.0
Answer = tuple[list[str], dict[str, Any]]


class ClusterEnv(Env):
    """The API of a cluster as one execution sees it."""

    def __init__(self, host: ProcessHost, execution: Execution) -> None:
        super().__init__(host, execution)
        assert isinstance(host.ledger, ClusterLedger)
        self.book = host.ledger

    def ask(self, verb: str, timeout: float, **fields: Any) -> Generator[Wait, None, Answer]:
        """Ask the directory.  Raises Failure if it does not answer in time."""
        host = self.host
        answers = host.process.questions.answers
        number = host.process.questions.ask_directory(verb, fields)
        yield Wait(
            lambda: answers[number] is not None or bool(host.client.lost), self.now + timeout
        )
        answer = answers.pop(number)
        host.check_alive()
        if answer is None:
            raise Failure(["FreeholdError", "the directory does not answer"])
        return answer

    def begin_job(self) -> Generator[Wait, None, None]:
        """The driver says that its job has begun."""
        yield from self.ask("job", TIMEOUT, job=self.job, info={}, alive=True)

    def value(self, ref: Ref, keep_view: bool = False) -> tuple[Value, list[Ref]]:
        row = ref.row
        if row.state == FAILED and isinstance(row.data, list) and row.data[0] == "OwnerDied":
            self.book.heirlooms.judge(row)
        return super().value(ref, keep_view)

    # -- names ------------------------------------------------------------------------------------
    def name_actor(
        self, name: str, spec: Spec, padding: int, nested: Sequence[Ref]
    ) -> Generator[Wait, None, Ref]:
        """An actor of that name.  Raises Failure if another has it."""
        (ref,) = yield from self.submit(spec, [0], padding, (), nested, gate=True)
        row, actors = ref.row, self.host.client.actors
        self.book.wanted[row.id] = name
        line = self.line(ref)
        me = self.host.machine.id
        value = msgspec.msgpack.encode([row.id, me, self.host.address, ref.actor])
        actors.names[row.id] = SPACE, name, value
        fields = {"namespace": SPACE, "name": name, "value": value, "proc": me}
        try:
            error, _ = yield from self.ask("name", TIMEOUT, job=self.job, **fields)
        except Failure:
            error = ["FreeholdError", ""]
        if error:
            self.book.failed_actors.add(row.id)
            actors.kill(line)
            self.drop(ref)
            raise Failure(error)
        if row.id in actors.names:  # else it has been killed meanwhile
            self.book.claimed(name, row.id, me)
            self._open(ref)
        return ref

    def _open(self, ref: Ref) -> None:
        """Let the constructor start."""
        task = ref.row.task
        if task is not None and task.links is not None:
            task.links.missing -= 1
            if not task.links.missing:
                self.host.client.start(task, self.now)

    def find_actor(self, name: str) -> Generator[Wait, None, Ref | None]:
        """The actor of that name, or None."""
        before = self.book.bearers(name)
        error, answer = yield from self.ask("find", TIMEOUT, namespace=SPACE, name=name)
        if error:
            raise Failure(error)
        if not answer["found"]:
            self.book.unknown(name, before)
            return None
        id, owner, address, actor = msgspec.msgpack.decode(answer["value"])
        row = self.host.owner.meet(id, owner, address)
        self.book.holds(id, self.host.machine.id)
        uncertain = self.host.owner.is_uncertain
        yield Wait(lambda: row.state == FAILED or not uncertain(row), self.now + MEET_TIMEOUT)
        ref = Ref(row, actor)
        if row.state == FAILED or uncertain(row):
            self.drop(ref)
            return None
        return ref

    # -- groups -----------------------------------------------------------------------------------
    @property
    def job(self) -> bytes:
        """The driver for whom this program runs."""
        return self.host.client.leases.requests.driver

    def make_group(
        self, bundles: list[dict[str, float]], strategy: str
    ) -> Generator[Wait, None, bytes]:
        """A placement group, which may have to wait for its places.  Raises Failure."""
        id = self.world.rng.randbytes(12)
        self.book.jobs[id] = self.job
        self.book.greedy += 1  # there may be too few nodes just now
        fields = {"group": id, "bundles": bundles, "strategy": strategy, "job": self.job}
        error, _ = yield from self.ask("group", TIMEOUT, wait=False, **fields)
        if error:
            raise Failure(error)
        return id

    def group_placed(self, group: bytes, timeout: float) -> Generator[Wait, None, bool]:
        """Wait until the group has its places; False if that takes longer."""
        try:
            error, answer = yield from self.ask("placed", timeout, group=group)
        except Failure:
            return False
        self.host.check_member(error)
        if error:
            self.book.judge(error, b"")
            raise Failure(error)
        self.book.placed(group, answer["nodes"])
        return True

    def remove_group(self, group: bytes) -> Generator[Wait, None, None]:
        """Give its resources back."""
        self.book.removed.add(group)
        yield from self.ask("ungroup", TIMEOUT, group=group)

    @staticmethod
    def demand(group: bytes, wanted: dict[str, float], index: int) -> tuple[tuple[str, float], ...]:
        """What a lease in that bundle asks for; -1: in any."""
        made = {}
        for name, amount in {**wanted, "bundle": SHARE}.items():
            made[f"{name}/{group.hex()}"] = amount
            if index >= 0:
                made[f"{name}/{group.hex()}/{index}"] = amount
        return tuple(sorted(made.items()))

    # -- copies -----------------------------------------------------------------------------------
    def put_kept(self, padding: int, inside: Sequence[Ref]) -> Generator[Wait, None, Ref]:
        """A new object, kept on two nodes if it is in shared memory."""
        ref = yield from self.put(padding, inside)
        row, keeping = ref.row, self.host.process.keeping
        if row.state != SHARED:
            return ref
        entry = keeping.want(row, 2)
        lost = self.host.client
        yield Wait(
            lambda: (
                row.state != SHARED
                or keeping.is_met(entry)
                or bool(entry.why and not entry.tried)
                or bool(lost.lost)
            ),
            self.now + COPIES_TIMEOUT,
        )
        if row.state == SHARED and keeping.is_met(entry):
            self.book.kept[row.id] = len(self.book.gone_nodes())
        return ref
