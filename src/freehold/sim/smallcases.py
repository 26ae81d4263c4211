"""The scenarios of the small world: what its programs do."""

from __future__ import annotations

from freehold.sim.smallprocess import Function, Step
from freehold.sim.smallstate import Scenario


def call(name: str, target: str, *deps: str, nested: tuple[str, ...] = (), actor: str = "") -> Step:
    """``name = target.remote(*deps, [nested])``."""
    return Step("call", name, target, deps, nested, actor)


def get(name: str) -> Step:
    """``freehold.get(name)``; the references in the value become ``name.0``, ``name.1``..."""
    return Step("get", name)


def delete(name: str) -> Step:
    """``del name``."""
    return Step("delete", name)


def put(name: str, *nested: str) -> Step:
    """``name = freehold.put([nested])``."""
    return Step("put", name, nested=nested)


def returns(*nested: str) -> Step:
    """``return [nested]``."""
    return Step("return", nested=nested)


HERE = Function((returns(),), node="n0")
THERE = Function((returns(),), node="n1")

CHAIN = Scenario(  # the trace of DESIGN §3.7
    "chain",
    {
        "main": Function(
            (call("1", "one"), call("2", "two", "1"), delete("1"), get("2"), get("2"))
        ),
        "one": THERE,
        "two": THERE,
    },
)

SAME = Scenario(  # one argument for two tasks, on different nodes; both may have to be made again
    "same argument",
    {
        "main": Function(
            (
                call("1", "one"),
                call("2", "two", "1"),
                call("3", "three", "1"),
                delete("1"),
                get("2"),
                get("3"),
                delete("2"),
                get("3"),
            )
        ),
        "one": THERE,
        "two": THERE,
        "three": HERE,
    },
)

NESTED = Scenario(  # a result refers to an object that its task's worker owns
    "nested result",
    {
        "main": Function((call("1", "one"), get("1"), get("1.0"), delete("1"), get("1.0"))),
        "one": Function((put("x"), returns("x")), node="n1"),
    },
    allowed=("OwnerDied", "ObjectLost"),
)

DEEP = Scenario(  # a reference in a reference in a reference, made by a task of a task
    "nested twice",
    {
        "main": Function((call("1", "one"), get("1"), get("1.0"), delete("1"), get("1.0.0"))),
        "one": Function((call("2", "two"), get("2"), returns("2")), node="n1"),
        "two": Function((put("x"), returns("x")), node="n0"),
    },
    allowed=("OwnerDied", "ObjectLost"),
)

BORROW = Scenario(  # the driver's object goes to one process, and from there to another
    "borrower",
    {
        "main": Function(
            (call("1", "one"), call("2", "two", nested=("1",)), delete("1"), get("2"))
        ),
        "one": THERE,
        "two": Function(
            (call("3", "three", nested=("arg.0",)), get("arg.0"), get("3"), returns()), node="n1"
        ),
        "three": Function((get("arg.0"), returns()), node="n0"),
    },
)

KEPT = Scenario(  # an actor keeps a reference beyond the call that brought it
    "kept by an actor",
    {
        "main": Function(
            (
                call("a", "Actor"),
                call("1", "one"),
                call("2", "keep", nested=("1",), actor="a"),
                delete("1"),
                get("2"),
                call("3", "forget", actor="a"),
                get("3"),
                delete("a"),
            )
        ),
        "one": THERE,
        "Actor": Function((), 0, 0.0, "n1", (("constructor", True), ("max_restarts", 0))),
        "keep": Function((get("arg.0"), Step("keep", "arg.0"), returns()), 0),
        "forget": Function((Step("forget"), returns()), 0),
    },
    allowed=("ActorDied", "ObjectLost"),
)

RESTART = Scenario(  # an actor that starts again; calls to it may be tried again
    "actor with restarts",
    {
        "main": Function(
            (
                call("a", "Actor"),
                call("1", "method", actor="a"),
                call("2", "method", actor="a"),
                get("1"),
                get("2"),
                delete("a"),
            )
        ),
        "Actor": Function((), 3, 0.0, "n1", (("constructor", True), ("max_restarts", 3))),
        "method": Function((returns(),), 3),
    },
    allowed=("ObjectLost",),  # what a method has made is not made again
)

ONCE = Scenario(  # what must not run twice, one behind the other on one worker
    "never again",
    {
        "main": Function((call("1", "one"), call("2", "one"), get("1"), get("2"))),
        "one": Function((returns(),), 0, node="n1"),
    },
    allowed=("WorkerDied", "ObjectLost"),
)

HEADLESS = CHAIN._replace(name="chain without a head", victims=("head", "nodes"))
MOVED = RESTART._replace(name="actor without a head", victims=("head", "nodes"))

SCENARIOS = (CHAIN, SAME, NESTED, DEEP, BORROW, KEPT, RESTART, ONCE, HEADLESS, MOVED)
