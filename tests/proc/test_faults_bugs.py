"""Bugs of the library's own: what has failed is shown, and nobody waits for ever."""

from __future__ import annotations

from sessions import start_script

PROGRAM = """
import freehold as fh, os, time
fh.init(num_cpus=2)
from freehold.core import messages as m
from freehold.proc import session
here = session.current_runtime

@fh.remote(max_retries=1)
def one():
    return 1

@fh.remote
class Pid:
    def pid(self):
        return os.getpid()

assert fh.get(one.remote()) == 1

def fail(*given):
    raise LookupError("a bug")

def outcome(call):
    try:
        return call()
    except fh.FreeholdError as error:
        return type(error).__name__
"""


def run(code: str) -> tuple[str, str]:
    with start_script(PROGRAM + code) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out, err


def test_a_handler_that_fails_ends_the_connection_and_is_shown() -> None:
    code = """
actor = Pid.remote()
pid = fh.get(actor.pid.remote())
handlers = here.machine.handlers
here.machine.handlers = tuple(
    fail if op in (m.DONE, m.DONE_FULL) else handler for op, handler in enumerate(handlers))
print(outcome(lambda: fh.get(actor.pid.remote(), timeout=20)))
here.machine.handlers = handlers
print(fh.get(one.remote(), timeout=20))
"""
    out, err = run(code)
    assert out.split() == ["ActorDied", "1"]
    assert "LookupError: a bug" in err


def test_when_the_background_thread_fails_every_call_says_so() -> None:
    code = """
ref = fh.remote(time.sleep).remote(60)
here.machine.settle = fail
while not here.client.lost:
    time.sleep(0.01)
del here.machine.settle
for call in (lambda: fh.get(ref), lambda: fh.get(one.remote()), lambda: fh.put(1)):
    print(outcome(call))
"""
    out, err = run(code)
    assert out.split() == ["NodeDied"] * 3
    assert err.count("LookupError: a bug") == 1
