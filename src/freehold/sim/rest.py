"""What must be left when everything is over: nothing.

All programs have ended and every handle is gone: then every table of every process must be empty,
whatever faults came before, and granted extents must be in the hands of living processes.
"""

from __future__ import annotations

from typing import Any

from freehold.core.head.head import Head
from freehold.core.messages import PENDING, SHARED
from freehold.core.node.node import Node
from freehold.sim.daemon import NodeHost
from freehold.sim.process import ProcessHost
from freehold.sim.values import brief


def processes_at_rest(hosts: list[ProcessHost]) -> list[str]:
    """What is left in processes although nobody refers to anything any more."""
    return [f"{host}: {text}" for host in hosts for text in _process_rest(host)]


def node_at_rest(node: NodeHost, hosts: list[ProcessHost]) -> list[str]:
    """What is left at a node; empty if all is well."""
    return [f"{node}: {text}" for text in _node_rest(node.node, hosts)]


def _process_rest(host: ProcessHost) -> list[str]:
    owner, client, executor = host.owner, host.client, host.executor
    found: dict[str, Any] = {
        "rows": list(owner.rows.values()),
        "handed tickets": [row for row, _, _ in owner._handed.values()],
        "freed": owner.freed,
        "lines": list(client.actors.lines.values()),
        "lease requests": client.leases.requests.open,
        "queue": [task.id.hex() for pool in client.leases.pools.values() for task in pool.queue],
        "in flight": [
            task.id.hex()
            for pool in client.leases.pools.values()
            for lease in pool.leases
            for task in lease.inflight.values()
        ],
        "leases": [lease.id for pool in client.leases.pools.values() for lease in pool.leases],
        "to run": list(executor.queue),
        "recipes": [brief(id) for id in client.lineage.recipes],
        "fetches": list(host.process.fetches.pending),
        "unpinned": owner.unpinned,
        "blocked": executor.blocked,
        "extent requests": host.process.extents,
        "heap": host.process.heap.used,
        "outboxes": [peer for peer in host.machine.peers.values() if peer.outbox],
        "kept on several nodes": [brief(id) for id in host.process.keeping.rows],
        "names": list(client.actors.names.values()),
    }
    return [f"{name}: {what!r}" for name, what in found.items() if what]


def _node_rest(node: Node, hosts: list[ProcessHost]) -> list[str]:
    store, workers = node.store, node.workers
    held = {host.machine.id: host.process.heap.extents for host in hosts}
    lost = [
        (start, who.hex()[:8])
        for start, who in store.extents.holders.items()
        if start not in held.get(who, {}) and who != node.id
    ]
    found: dict[str, Any] = {
        "objects": [brief(stored.id) for stored in store.objects.values()],
        "adopted": list(node.estates.adopted),
        "loans": [brief(id) for id in node.estates.loans.by_id],
        "early frees": sorted(store.early),
        "estates": [*node.estates.open, *node.estates.late],
        "trims": store.trimmed,
        "allocating": store.allocating,
        "extents of nobody": lost,
        "leases": list(workers.leases),
        "lease queue": [grant.holder for grant in workers.queue],
        "occupied": {
            name: (workers.free[name], total)
            for name, total in workers.total.items()
            if abs(workers.free[name] - total) > 1e-6
        },
        "bytes": store.bytes,
        "copies": [brief(copy.id) for copy in node.pulls.copies.by_offset.values()],
        "pulls": list(node.pulls.pulls),
        "bundles": list(node.scheduler.bundles),
        "set aside": {name: amount for name, amount in workers.aside.items() if amount > 1e-6},
        "names": [names for names in node.members.relay.names.values() if names],
        "questions": [asked.verb for asked in node.members.relay.questions.values()],
        "copies to keep": list(node.departing.waiting),
        "retiring": [True] * node.members.me.retiring,
        "bodies": [*node.bodies.bodies, *node.bodies.numbers],
        "trusts": list(node.trusts.held),
    }
    return [f"{name}: {what!r}" for name, what in found.items() if what]


def head_at_rest(head: Head) -> list[str]:
    """What is left at the head although nobody has a name or a group any more."""
    found: dict[str, Any] = {
        "names": head.directory.names,
        "groups": [group.hex() for group in head.groups.groups],
    }
    return [f"head: {name}: {what!r}" for name, what in found.items() if what]


def stuck(host: ProcessHost) -> str:
    """Why a process is not over, for the report of a hang."""
    pending = [
        f"{row!r} task {row.task and row.task.place and row.task.place.peer}"
        for row in host.owner.rows.values()
        if row.state == PENDING
    ]
    pools = [
        (pool.shape, len(pool.queue), len(pool.leases), sorted(pool.requests))
        for pool in host.client.leases.pools.values()
    ]
    runs = [execution.run and brief(execution.run.id) for execution in host.executions]
    shared = sum(row.state == SHARED for row in host.owner.rows.values())
    queue = [brief(run.id) for run in host.executor.queue]
    return (
        f"{host}: runs {runs}, queue {queue}, pools {pools}, {shared} shared, pending:\n    "
        + "\n    ".join(pending)
    )
