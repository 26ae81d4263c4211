"""Detached actors in the simulator: programs make them, others find, call and kill them.

When the faults and all programs are over a *late* driver comes, whose program finds every detached
actor that the head knows, calls it, and must be answered; then it kills it, and nothing may be
left.  At most one process is each of them by then.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

from freehold.core.ids import detached_id
from freehold.core.messages import INLINE
from freehold.core.process.requests import fields_of
from freehold.core.process.rows import CONSTRUCTOR, METHOD
from freehold.sim.env import Env
from freehold.sim.handles import Ref
from freehold.sim.ledger import Failure
from freehold.sim.process import Execution, ProcessHost, Program, Wait
from freehold.sim.values import Value, Violation, dump

SPACE = "detached"
ANSWERED = 1e9  # seconds that a driver waits
Asked = Generator[Wait, None, tuple[list[Any], dict[str, Any]]]


def ask(env: Env, verb: str, **fields: Any) -> Asked:
    """The directory's answer.  Raises Failure if the node is gone."""
    host = env.host
    host.check_alive()
    questions = host.process.questions
    number = questions.ask_directory(verb, fields)
    yield Wait(lambda: questions.answers[number] is not None or bool(host.client.lost))
    answer = questions.answers.pop(number)
    host.check_alive()
    assert answer is not None
    return answer


def make(env: Env, rng: random.Random, padding: int, nested: list[Ref], deps: list[Ref]) -> Any:
    """Have a detached actor made (``proc.detached``); a handle to it, or None."""
    host, restarts = env.host, rng.choice([0, 1, 3, 5])
    wire = {"constructor": True, "max_restarts": restarts}
    spec = env.spec(CONSTRUCTOR, 1, 0.0, 0, wire)
    refs = env.export(nested)
    env.export(deps)
    held = [ref.row for ref in (*nested, *deps)]
    for row in held:
        row.handles += 1
    id = env.execution.context.next_id()
    actor = detached_id(id)
    submission = env.ledger.submission(restarts)
    data = dump(Value(actor, [submission, 0, 0], refs, padding))
    args_row = None
    try:
        if len(data) > host.world.setup.inline_max:
            args_row = yield from env.place_arguments(data, id)
            args_row.handles += 1
            held.append(args_row)
            data = b""
        tops = list(enumerate(ref.row for ref in deps))
        rows = [ref.row for ref in nested]
        plan = host.process.embodying.plan(spec, data, [], args_row, tops, rows)
        name = f"{host.name}-{submission}"
        error, _ = yield from ask(
            env, "detach", actor=actor, namespace=SPACE, name=name, value=actor, cpus=0.0,
            resources={}, where=fields_of(()), restarts=restarts, plan=list(plan),
        )  # fmt: skip
        host.check_member(error)
        if error:
            env.ledger.judge(error, actor)
            return None
        env.ledger.detached[name] = actor, restarts
        host.process.embodying.trust(actor, held)
        return Ref(host.process.embodying.seek(actor), restarts + 1)
    finally:
        host.drops.extend(held)


def find(env: Env, name: str) -> Generator[Wait, None, Ref | None]:
    """A handle to the actor of that name, if there (still) is one."""
    error, fields = yield from ask(env, "find", namespace=SPACE, name=name)
    if error or not fields["found"]:
        return None
    actor, restarts = env.ledger.detached[name]
    if fields["value"] != actor:
        raise Violation(f"{name} is another actor now")
    return Ref(env.host.process.embodying.seek(actor), restarts + 1)


def end(env: Env, actor: Ref) -> Generator[Wait, None, None]:
    """Kill it (``api.kill``)."""
    env.ledger.failed_actors.add(actor.row.id)
    yield from ask(env, "end", actor=actor.row.id)
    if actor.row.state == INLINE:
        env.host.client.actors.kill(env.line(actor))


def late(host: ProcessHost, execution: Execution) -> Program:
    """The late driver's program."""
    env = Env(host, execution)
    yield Wait(lambda: host.owner.node is not None)
    error, fields = yield from ask(env, "detached")
    if error:
        return  # its node has been given up: another will come
    for entry in fields["detached"]:
        name = entry["name"]
        if name not in env.ledger.detached:  # its maker died before it was answered
            env.ledger.detached[name] = entry["actor"], 0
        actor = yield from find(env, name)
        if actor is not None:
            yield from _try(env, actor)
            yield from end(env, actor)
            env.drop(actor)
        if (yield from find(env, name)) is not None:
            raise Violation(f"{name} was killed, and has its name still")


def _try(env: Env, actor: Ref) -> Generator[Wait, None, None]:
    """Call it until it answers or is dead: one call may meet its death."""
    retries = 2 if actor.actor > 1 else 0
    for _ in range(3):
        spec = env.spec(METHOD, 1, 0.0, retries, {})
        refs: list[Ref] = []
        try:
            refs = yield from env.submit(spec, [0], 0, (), (), actor)
            found = yield from env.get(refs[0], ANSWERED)
            assert found is not None
            refs += found[1]
        except Failure:
            continue
        else:
            env.ledger.survivors += 1
            _is_one(env, actor.row.id)
            return
        finally:
            for ref in refs:
                env.drop(ref)


def _is_one(env: Env, actor: bytes) -> None:
    """Nobody else is the actor that has answered, but where nobody can be reached."""
    living = env.ledger.living(actor)
    if len(living) > 1:
        raise Violation(f"{len(living)} processes are the actor {actor.hex()}")
