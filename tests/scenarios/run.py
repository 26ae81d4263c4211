"""Transcripts of the protocol: each file is a script for the bench, with what came of each line.

A line that starts at the margin is a command, ``#`` a comment, and an indented line what happened:
frames in the order of their delivery, or an answer.  ``python tests/scenarios/run.py --accept``
writes the outcomes anew; look at the difference before you keep it.

Commands (WHO is ``driver`` or a worker; a name with ``&`` goes inside a value, others on top)::

    start [cpus=1] [ahead=0.002] [stall=0.002] [depth=64] [pace=SECONDS]
    worker w1                   the spawner has started the worker that was asked for
    WHO submit NAME = function [dep...] [&nested...] [retries=0] [cpus=1]
    WHO actor NAME = Class      WHO call NAME = actor.method [dep...] [&nested...]
    WHO put NAME = value [&inside...]          a value that begins with "big" lives in the arena
    WHO get NAME                WHO open NAME (its references become held)      WHO drop NAME
    WHO run                     WHO finish value [&inside...] [keep=NAME,...]    ("!text" raises)
    WHO block | unblock | show  WHO kill ACTOR        WHO extent BYTES (of the arena, for itself)
    deliver                     all there is, until it is quiet
    deliver WHO                 what WHO has been sent       deliver WHO -> WHO    ... by that one
    tick SECONDS                crash WHO                    cut WHO WHO (their connection)
"""

from __future__ import annotations

import sys
from pathlib import Path

from freehold.core.process.leases import Limits
from freehold.sim.bench import actor_class, function, method

HERE = Path(__file__).parent
if str(HERE.parent) not in sys.path:  # pytest has done so; a person who runs this file has not
    sys.path.append(str(HERE.parent))

from wires import Wires  # noqa: E402


class Script:
    """The bench, driven by lines of text."""

    def __init__(self) -> None:
        self.bench = Wires()
        self.pace: float | None = None

    def do(self, line: str) -> list[str]:
        """Do one command; what came of it."""
        words = [word for word in line.split() if word not in ("=", "->")]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        words = [word for word in words if "=" not in word]
        self.bench.lines = []
        if words[0] == "start":
            self._start({name: float(value) for name, value in options.items()})
        elif words[0] in ("worker", "crash", "deliver", "tick", "cut"):
            self._world(*words)
        else:
            return self.bench.lines + self._user(words[0], words[1], words[2:], options)
        return self.bench.lines

    def _start(self, options: dict[str, float]) -> None:
        limits = Limits(
            depth_max=int(options.get("depth", 64)), ahead=options.get("ahead", 0.002),
            stall=options.get("stall", 0.002),
        )  # fmt: skip
        self.pace = options.get("pace")
        self.bench = Wires(options.get("cpus", 1.0), limits)

    def _world(self, verb: str, *names: str) -> None:
        bench = self.bench
        if verb == "worker":
            bench.worker(names[0])
        elif verb == "crash":
            bench.kill(names[0])
        elif verb == "cut":
            bench.cut(*names)
        elif verb == "deliver":
            bench.deliver(*names)
        else:
            bench.tick(float(names[0]))

    def _user(self, who: str, verb: str, names: list[str], options: dict[str, str]) -> list[str]:
        bench = self.bench
        tops = [name for name in names if not name.startswith("&")]
        inside = [name[1:] for name in names if name.startswith("&")]
        executor = bench.desks[who].process.executor
        if verb == "submit":
            spec = function(tops[1], int(options.get("retries", 0)), float(options.get("cpus", 1)))
            spec.pace = self.pace
            bench.submit(who, [tops[0]], spec, tops[2:], inside)
        elif verb == "actor":
            bench.submit(who, [tops[0]], actor_class(tops[1]), tops[2:], inside)
        elif verb == "call":
            actor, name = tops[1].split(".")
            bench.submit(who, [tops[0]], method(name), tops[2:], inside, actor)
        elif verb == "put":
            bench.put(who, tops[0], tops[1], inside)
        elif verb == "get":
            return [bench.get(who, tops[0])]
        elif verb == "open":
            bench.open(who, tops[0])
        elif verb == "drop":
            bench.drop(who, tops[0])
        elif verb == "run":
            return [bench.run(who)]
        elif verb == "finish":
            bench.finish(who, tops[0], inside, options.get("keep", "").split(","))
        elif verb == "show":
            return bench.table(who)
        elif verb == "kill":
            actors = bench.desks[who].process.client.actors
            actors.kill(actors.line(bench.desks[who].refs[tops[0]]))
            bench.settle()
        elif verb == "extent":
            bench.desks[who].process.request_extent(int(tops[0]))
            bench.settle()
        elif verb == "block":
            executor.block(bench.desks[who].run)
            bench.settle()
        elif verb == "unblock":
            executor.unblock()
            bench.settle()
        else:
            raise ValueError(f"no command is called {verb!r}")
        return []


def perform(text: str) -> str:
    """The script with the outcomes that it has now."""
    script = Script()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            continue  # an outcome; it is made again
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [f"    {outcome}" for outcome in script.do(line)]
    return "\n".join(lines) + "\n"


def scenarios() -> list[Path]:
    """The files, in order."""
    return sorted(HERE.glob("*.txt"))


def main() -> int:
    """Check every file, or with ``--accept`` write it; the exit status."""
    accept = "--accept" in sys.argv
    wrong = 0
    for path in scenarios():
        text = path.read_text(encoding="utf-8")
        now = perform(text)
        if now != text:
            wrong += 1
            print(f"{path.name}: {'written' if accept else 'differs'}")
            if accept:
                path.write_text(now, encoding="utf-8")
    return bool(wrong and not accept)


if __name__ == "__main__":
    sys.exit(main())
