"""Messages between machines: nodes and their head, leases elsewhere, objects between nodes."""

from __future__ import annotations

from freehold.core import messages_process as _before  # noqa: F401 (its opcodes come first)
from freehold.core.opcodes import message

# -- the cluster: nodes and their head (``head.head``, ``node.members``)
JOINED = message(
    "JOINED", "head", "node",
    "Answer to a node's HELLO: it is a member from now on.",
    "epoch: int — raised by every change of the membership",
    "nodes: list — [id, address, total, labels, free, waiting, retiring] of every member",
)  # fmt: skip
REFUSED = message(
    "REFUSED", "head", "node",
    "The node may not join, or is a member no longer: its identity is dead and never returns.",
    "reason: str",
)  # fmt: skip
NODE_UP = message(
    "NODE_UP", "head", "node",
    "A node has joined.",
    "epoch: int",
    "node: bytes",
    "address: str",
    "total: map — resource -> amount",
    "labels: map",
)  # fmt: skip
NODE_DOWN = message(
    "NODE_DOWN", "head, node", "node, head",
    "A node is dead, with all its processes and objects.  A node tells it to a head that comes "
    "back, if it had to declare it itself.",
    "epoch: int",
    "node: bytes",
    "reason: str",
)  # fmt: skip
REPORT = message(
    "REPORT", "node", "head",
    "What is free, when it has changed; and in any case now and then, as a sign of life.",
    "free: map — resource -> amount",
    "waiting: int — lease requests in its queue",
)  # fmt: skip
GOSSIP = message(
    "GOSSIP", "head", "node",
    "What nodes have reported since the last GOSSIP.",
    "nodes: list — [id, free, waiting, retiring, total]; an empty total has not changed",
)  # fmt: skip
LEAVE = message("LEAVE", "node", "head", "The node has drained, and leaves in good order.")
RETIRE = message(
    "RETIRE", "tool, head", "head, node",
    "Drain: take no more leases, move objects off, let tasks finish, then LEAVE.",
    "node: bytes",
)  # fmt: skip
DIRECTORY = message(
    "DIRECTORY", "process, node, tool", "node, head",
    "A question to the head's directory, by way of the node: names, jobs, groups.",
    "request: int",
    "verb: str — see ``head.directory``",
    "fields: map",
)  # fmt: skip
ENTRY = message(
    "ENTRY", "head, node", "node, process, tool",
    "The directory's answer.",
    "request: int",
    "error: list — [] or [class name, text]",
    "fields: map",
)  # fmt: skip
BUNDLE = message(
    "BUNDLE", "head", "node",
    "Set resources aside for a bundle of a placement group, make them the group's, or give them "
    "back.  Each step may come twice, and is answered each time.",
    "group: bytes",
    "index: int",
    "step: str — prepare, commit or drop",
    "resources: map",
)  # fmt: skip
BUNDLED = message(
    "BUNDLED", "node", "head",
    "Whether the step is done: the resources are set aside, are the group's, are given back.",
    "group: bytes",
    "index: int",
    "step: str",
    "done: bool",
)  # fmt: skip
STORE = message(
    "STORE", "head", "store",
    "Write these entries, all or none, durably, before the answer.",
    "request: int",
    "checks: list — [key, revision]: what each must be at; 0: absent",
    "entries: list — [key, value]; an empty value deletes",
)  # fmt: skip
STORED = message(
    "STORED", "store", "head",
    "They are on disk, or were refused.",
    "request: int",
    "revision: int — 0: a check failed, or the store is another head's now",
)  # fmt: skip
PROBE = message(
    "PROBE", "head, node", "prober",
    "Dial that node, and see whether it is the one that answers.",
    "node: bytes",
    "address: str",
)  # fmt: skip
PROBED = message(
    "PROBED", "prober", "head, node",
    "What came of it.",
    "node: bytes",
    "answer: str — alive; refused (nobody, or somebody else, is there); silent",
)  # fmt: skip

# -- processes and the nodes of others
NODE_LOST = message(
    "NODE_LOST", "node", "process",
    "A node is dead, with all its processes and objects.",
    "node: bytes",
    "reason: str",
    "orphans: bool — answer with HELD; false once its estate has been collected",
    "adopter: list — [node, address] of who owns in their stead; []: the sender",
)  # fmt: skip
ESTATE_HELD = message(
    "ESTATE_HELD", "node", "node",
    "To the adopter: what this node's processes hold of the dead, and what it stores.",
    "dead: bytes — the process, or the node",
    "held: list — [id, ticket, holder, whether it could have it made again, whether it works for "
    "another program]",
    "contexts: list — [context, process] of tasks that are run again",
    "stored: list — [id, owner, place, inside], as in SEAL; place of an actor: [process, address, "
    "-1, node]",
    "lent: list — as in HELD",
    "given: list — as in HELD, each with its holder",
    "silent: list — processes there that have yet to answer, and may hold anything",
)  # fmt: skip
ESTATE = message(
    "ESTATE", "node", "node",
    "From the adopter: free what you store of the dead, but for these.",
    "dead: bytes",
    "kept: list — RefIds",
)  # fmt: skip
REVIVE = message(
    "REVIVE", "node, caller", "node, process, worker",
    "Have the task run again that makes this orphan.  From a caller: say when its run has made it.",
    "id: bytes — RefId",
    "proc: bytes — who can; the node tells it",
)  # fmt: skip
REBORN = message(
    "REBORN", "process, node", "node, process",
    "The orphan has been made again, and has a living owner; or it cannot be.",
    "id: bytes — RefId",
    "owner: bytes — empty: it is lost",
    "address: str",
)  # fmt: skip
FREE_FOR = message(
    "FREE_FOR", "node", "node",
    "FREE of objects that lie on the receiver, passed on by the owner's node.",
    "owner: bytes — ProcId",
    "objects: list — [id, holder] pairs",
)  # fmt: skip
REDIRECT = message(
    "REDIRECT", "node", "process",
    "Ask that node for the lease instead.",
    "request: int",
    "node: bytes",
    "address: str",
)  # fmt: skip
CLUSTER = message(
    "CLUSTER", "node", "process",
    "The cluster has changed: what all nodes have together.",
    "total: map — resource -> amount",
    "nodes: int",
)  # fmt: skip
WATCH = message(
    "WATCH", "process, node", "node",
    "From a process: tell me of deaths on that node, and ask it when I die.  From a node: tell me "
    "of deaths on yours.  "
    "The answer is PROC_DOWN for everyone who has died there, and then as it happens.",
    "node: bytes",
)  # fmt: skip

# -- objects between nodes (``node.pulls``)
FETCH = message(
    "FETCH", "process", "node",
    "Make a copy of an object here.",
    "id: bytes — RefId",
    "place: list — where it is",
    "owner: bytes",
    "owner_address: str",
    "kind: int — 0 for a `get`, 1 for a task's argument: these wait for memory behind those",
)  # fmt: skip
FETCHED = message(
    "FETCHED", "node", "process",
    "The copy is here, and stays until UNPIN; or why it could not be made.",
    "id: bytes",
    "source: list — the place that was asked for",
    "place: list — [] if it failed",
    "reason: str",
)  # fmt: skip
UNPIN = message(
    "UNPIN", "process", "node",
    "The process needs these copies no longer.",
    "offsets: list — in the arena, as FETCHED has said",
)  # fmt: skip
COPIED = message(
    "COPIED", "node", "owner",
    "There is a copy on the sender, to be freed like the first.",
    "id: bytes",
    "place: list",
)  # fmt: skip
LOST = message(
    "LOST", "borrower, worker", "owner, caller",
    "The object could not be read at that place: its value is to be sent again when there is one.  "
    "A caller who does not own it tells the owner.  Of an actor: its process is said to be dead.",
    "id: bytes",
    "place: list — where it was; of an actor [process]",
)  # fmt: skip
UNCOPIED = message(
    "UNCOPIED", "node", "owner",
    "The copy there is gone: it made room for others.",
    "id: bytes",
    "place: list",
)  # fmt: skip
MOVE = message(
    "MOVE", "node", "mover",
    "Copy bytes of an object on another node into this node's arena.",
    "transfer: int",
    "source: str — the node's address",
    "id: bytes",
    "place: list — where it was first asked for, which names its bytes on every node",
    "skip: int — bytes that are here already",
    "offset: int — of the object in this arena",
    "direct: bool — the source is not to name another node",
)  # fmt: skip
MOVED = message(
    "MOVED", "mover", "node",
    "The transfer is over.",
    "transfer: int",
    "have: int — bytes that are here now",
    "reason: str — '' if all are; 'gone' if the source has it no longer; else what broke",
    "other: str — the address of a node to ask instead, '' if none",
)  # fmt: skip
SERVE = message(
    "SERVE", "mover", "node",
    "Another node asks for an object: say whether it may be read, and where it is.",
    "transfer: int",
    "id: bytes",
    "place: list — as in its MOVE",
    "node: bytes — who asks",
    "address: str",
    "direct: bool — do not name another node",
)  # fmt: skip
SERVING = message(
    "SERVING", "node", "mover",
    "Read it there; bytes beyond `have` are still coming.",
    "transfer: int",
    "offset: int — -1: it is not here; -2: ask `other`",
    "size: int",
    "have: int",
    "other: str",
)  # fmt: skip
SERVED = message(
    "SERVED", "mover", "node",
    "The reader is done, or gone; once for each SERVE.",
    "transfer: int",
    "done: bool — it has got all",
)  # fmt: skip
HALT = message(
    "HALT", "node", "mover",
    "Give the transfer up, in whichever direction; MOVED or SERVED still follows.",
    "incoming: bool",
    "transfer: int — the node numbers incoming ones, the mover those that it serves",
)  # fmt: skip
ACK = message(
    "ACK", "any", "any",
    "Between machines: so many of your frames have come (``proc.lasting``).  The first one on a "
    "connection takes the call; -1 refuses it for ever, since the caller was given up.",
    "got: int",
)  # fmt: skip

# -- what comes with a lease
GPUS = message(
    "GPUS", "node", "process",
    "The lease that is granted next has these GPUs.",
    "request: int",
    "gpus: list — their numbers on that node",
)  # fmt: skip
LEASED = message(
    "LEASED", "holder", "worker",
    "Before the first task of a lease that has GPUs.",
    "gpus: list — their numbers on the node",
)  # fmt: skip

# -- copies that are kept (``process.keeping``, ``node.departing``)
COPY = message(
    "COPY", "owner", "node",
    "Have a copy made on a node that is none of these, and kept until its owner frees it.",
    "id: bytes — RefId",
    "place: list — where it is",
    "others: list — nodes",
)  # fmt: skip
KEEP = message(
    "KEEP", "node", "node",
    "Make that copy, and tell the owner.",
    "id: bytes — RefId",
    "place: list — where it is",
    "owner: bytes",
    "owner_address: str",
)  # fmt: skip
KEPT = message(
    "KEPT", "node", "process",
    "The answer to COPY.",
    "id: bytes — RefId",
    "node: bytes — which was to make it; empty: there is none",
    "place: list — [] if it failed",
    "reason: str",
)  # fmt: skip
DEPART = message(
    "DEPART", "node", "node, owner",
    "What lies there must go, for its node leaves.  It goes by way of the owner's node.",
    "owner: bytes",
    "id: bytes — RefId",
    "place: list",
)  # fmt: skip
DISMISS = message(
    "DISMISS", "node", "worker",
    "The node leaves: end in good order, or STAY while others need what the receiver owns.",
)  # fmt: skip

# -- members that cannot reach each other (``head.gaps``)
REACH = message(
    "REACH", "node", "head",
    "Whether this node reaches that one.  It says so when it has tried for a while in vain, and "
    "again when it does; and when it was asked.",
    "node: bytes",
    "reached: bool",
    "asked: bool — the answer to WITNESS",
)  # fmt: skip
WITNESS = message(
    "WITNESS", "head", "node",
    "Dial that node, and say whether it answers.",
    "node: bytes",
    "address: str",
)  # fmt: skip
OUSTED = message(
    "OUSTED", "node", "process",
    "The head has given this node up, and it ends now.",
    "reason: str",
)  # fmt: skip

# -- detached actors (``head.detached``, ``node.bodies``, ``process.embodying``)
EMBODY = message(
    "EMBODY", "head", "node",
    "Have a worker of yours become that actor, and report what comes of it (the directory's verb "
    "``incarnation``).  It may come twice.",
    "actor: bytes — its RefId",
    "number: int — of the incarnation",
    "cpus: float",
    "resources: map",
    "where: list — the strategy, as in LEASE",
    "restarts: int — how often it may be made again after this time; -1: for ever",
    "plan: list — see ``process.embodying``",
)  # fmt: skip
ENDED = message(
    "ENDED", "head", "node",
    "The actor is no more: end its process, and hold nothing for it.",
    "actor: bytes",
)  # fmt: skip
BECOME = message(
    "BECOME", "node", "worker",
    "Become that actor: run its constructor, and own its reference.",
    "actor: bytes",
    "plan: list",
)  # fmt: skip
BORN = message(
    "BORN", "worker", "node",
    "The constructor is over.",
    "actor: bytes",
    "error: list — [] if the actor lives, else [class name, text, cause?]",
)  # fmt: skip
TRUST = message(
    "TRUST", "process", "node",
    "Hold these for the actor, whose constructor may have to run again: its arguments.",
    "actor: bytes",
    "refs: list — each with a ticket in the receiver's name",
)  # fmt: skip

# -- what the dead have begun (``process.claims``)
CLAIM = message(
    "CLAIM", "owner, node, holder", "node, process",
    "To a borrower, by way of the nodes: who made these tickets for you is dead; release those "
    "that you have never heard of.  Or from who has made them: their owner is dead, and its heir "
    "knows of them; release those that you have no more.",
    "borrower: bytes",
    "home: bytes — its node",
    "giver: bytes — who is dead",
    "owner: bytes",
    "address: str — of the owner",
    "tickets: list — [id, ticket]",
)  # fmt: skip
