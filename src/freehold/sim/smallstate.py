"""The states of the small world, as data; see ``sim.smallworld``."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from freehold.sim import rest
from freehold.sim.smallprocess import Library, ProcessSite
from freehold.sim.smallsites import NodeSite, Site, thaw

Event = tuple[Any, ...]  # a verb of ``smallsites.EVENTS``, and its arguments
Channel = tuple[str, int]  # where the events come from, and the host that they are for
Live = tuple[tuple[int, tuple[int, bytes]], ...]


class Scenario(NamedTuple):
    """Programs, where they run, and what may go wrong.

    Args:
        library: the programs by name; the driver's is ``main``.
        allowed: the errors that programs may meet, by the class's name.
        victims: ``workers``, ``nodes`` (but the driver's), or names of hosts, such as ``head``.
    """

    name: str
    library: Library
    nodes: int = 2
    cpus: tuple[float, ...] = (1.0, 1.0)
    allowed: tuple[str, ...] = ()
    victims: tuple[str, ...] = ("workers", "nodes")


class Bounds(NamedTuple):
    """How far to look."""

    deaths: int = 1
    delays: int | None = 1
    states: int = 10_000_000


class Local:
    """A local state of one host."""

    __slots__ = ("blob", "busy", "deadline", "links", "over", "started")

    def __init__(self, blob: bytes, site: Site) -> None:
        self.blob = blob
        self.deadline = site.machine.deadline()
        self.links = tuple(site.links)
        process = isinstance(site, ProcessSite)
        self.started = site.executor.started if process else b""  # type: ignore[attr-defined]
        self.over = site.over if process else False  # type: ignore[attr-defined]
        self.busy: bool | None = None  # whether anything is left in its tables, once asked

    def is_busy(self) -> bool:
        """Whether anything is left in the host's tables that does not depend on other hosts."""
        if self.busy is None:
            left = left_in([thaw(self.blob)])
            self.busy = any("extents of nobody" not in text for text in left)
        return self.busy


def left_in(sites: list[Site]) -> list[str]:
    """What is left in the tables of hosts."""
    processes = [site for site in sites if isinstance(site, ProcessSite)]
    hosts = cast("Any", processes)
    left = [
        f"{site}: {execution.name} at step {execution.at}"
        for site in processes
        for execution in site.executions
    ]
    left += rest.processes_at_rest(hosts)
    for site in sites:
        if isinstance(site, NodeSite):
            left += rest.node_at_rest(cast("Any", site), hosts)
    return left


class HostInfo(NamedTuple):
    """Who a host is: the same in all states."""

    name: str
    address: str
    node: int  # the host that is its node; -1 for the head
    slot: int


class State:
    """One state of the world; copied before it is changed."""

    __slots__ = (
        "channels", "deaths", "delays", "ended", "held", "hosts", "locals", "memory",
        "now", "runs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.hosts: tuple[HostInfo, ...] = ()
        self.locals: list[int] = []  # -1: dead
        self.memory: dict[int, int] = {}  # node -> which
        self.channels: dict[Channel, tuple[Event, ...]] = {}
        self.held: frozenset[Channel] = frozenset()  # channels that are held up
        self.runs: dict[bytes, int] = {}
        self.deaths = 0  # that may still happen
        self.delays = 0
        self.now = 0.0
        self.ended = 0.0  # when the driver's program had ended, and all was quiet

    def copy(self) -> State:
        """The same, to be changed."""
        new = State()
        new.hosts, new.held = self.hosts, self.held
        new.locals = self.locals.copy()
        new.memory = self.memory.copy()
        new.channels = self.channels.copy()
        new.runs = self.runs.copy()
        new.deaths, new.delays, new.now, new.ended = self.deaths, self.delays, self.now, self.ended
        return new

    def at(self, address: str) -> int:
        """The living host at an address, or -1."""
        for number, info in enumerate(self.hosts):
            if info.address == address and self.locals[number] >= 0:
                return number
        return -1

    def append(self, channel: Channel, event: Event) -> None:
        """An event is under way."""
        self.channels[channel] = (*self.channels.get(channel, ()), event)

    def drop(self, channel: Channel) -> None:
        """What is under way there is lost."""
        del self.channels[channel]
        self.held -= {channel}

    def key(self, ordered: bool) -> Any:
        """What makes two states the same."""
        channels = self.channels.items()
        return hash(
            (
                tuple(self.locals), tuple(self.memory.values()),
                tuple(channels) if ordered else frozenset(channels),
                self.held, frozenset(self.runs.items()), self.hosts, self.deaths, self.delays,
                self.now, self.ended,
            )
        )  # fmt: skip


class Report(NamedTuple):
    """What an exploration has seen."""

    scenario: str
    states: int
    transitions: int
    local_states: int
    ends: int
    errors: dict[str, int]
    complete: bool  # within the bounds

    def __str__(self) -> str:
        met = ", ".join(f"{n:,} {kind}" for kind, n in sorted(self.errors.items())) or "none"
        return (
            f"{self.scenario}: {self.states:,} states, {self.transitions:,} transitions, "
            f"{self.local_states:,} local states, {self.ends:,} ends; errors met: {met}"
            + ("" if self.complete else "; not complete")
        )
