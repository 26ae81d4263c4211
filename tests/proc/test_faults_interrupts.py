"""Ctrl-C: prompt while the program waits, harmless while the tables are being changed."""

from __future__ import annotations

import random
import signal
import time

import pytest

from sessions import line_of, start_script, until

PROGRAM = """
import freehold as fh, sys, time, threading, os
@fh.remote
def nap(s): time.sleep(s)
@fh.remote
def double(x): return 2 * x
def say(text): print(text, flush=True)
"""

WAITS = {
    "get": "fh.get(nap.remote(60))",
    "get list": "fh.get([nap.remote(60), nap.remote(60)])",
    "get with timeout": "fh.get(nap.remote(60), timeout=50)",
    "wait": "fh.wait([nap.remote(60)])",
    "the user's own code": "time.sleep(60)",
    "await": "__import__('asyncio').run(wrap(nap.remote(60)))",
}


@pytest.mark.parametrize("wait", WAITS)
def test_an_interrupt_is_prompt_and_the_session_lives_on(wait: str) -> None:
    code = f"""
async def wrap(ref): return await ref
fh.init(num_cpus=2)
fh.get(double.remote(1))
for _ in range(3):
    try:
        say("waiting")
        {WAITS[wait]}
    except KeyboardInterrupt:
        say("interrupted")
assert fh.get([double.options(num_cpus=0).remote(n) for n in range(50)]) == [2*n for n in range(50)]
fh.shutdown()
say("done")
"""
    with start_script(PROGRAM + code) as process:
        for number in range(3):
            assert line_of(process) == "waiting"
            pause = time.monotonic() + (0.05 if number else 0.3)
            until(lambda pause=pause: time.monotonic() > pause)
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            assert line_of(process) == "interrupted"
            assert time.monotonic() - start < 0.5
        assert line_of(process) == "done"
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err


def test_an_interrupt_while_another_thread_pumps() -> None:
    code = """
fh.init(num_cpus=2)
ref = nap.remote(2)
thread = threading.Thread(target=lambda: fh.get(ref))
thread.start()
try:
    say("waiting")
    fh.get(nap.remote(60))
except KeyboardInterrupt:
    say("interrupted")
thread.join()
fh.shutdown()
say("done")
"""
    with start_script(PROGRAM + code) as process:
        assert line_of(process) == "waiting"
        pause = time.monotonic() + 0.2
        until(lambda: time.monotonic() > pause)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert line_of(process) == "interrupted"
        assert time.monotonic() - start < 0.5
        assert line_of(process) == "done"


def test_interrupts_at_any_moment_leave_the_tables_sound() -> None:
    code = """
fh.init(num_cpus=2)
from freehold.proc import session
here = session.current()
interrupts = rounds = 0
end = time.monotonic() + 4

def use():
    global rounds
    while time.monotonic() < end:
        rounds += 1
        refs = [double.remote(n) for n in range(30)]
        big = fh.put(bytes(200_000))
        refs += [double.remote(big), double.remote(fh.put(2))]
        fh.wait(refs, num_returns=5)
        assert fh.get(refs[:30]) == [2 * n for n in range(30)]
        assert len(fh.get(refs[30])) == 400_000

def until_the_end():
    global interrupts
    while time.monotonic() < end:
        try:
            use()
        except KeyboardInterrupt:
            interrupts += 1

while time.monotonic() < end:
    try:
        os.write(1, b"ready\\n")
        until_the_end()
    except KeyboardInterrupt:
        pass
while True:
    try:
        here.process.check()
        assert fh.get([double.remote(n) for n in range(100)]) == [2 * n for n in range(100)]
        while fh.status()["references"]:
            time.sleep(0.001)
        assert not fh.status()["objects"]["count"]
        assert fh.status()["deaths"] == 0
        fh.shutdown()
        os.write(1, f"done {interrupts > 20} {rounds > 20}\\n".encode())
        break
    except KeyboardInterrupt:
        continue
"""
    chance = random.Random(3)
    with start_script(PROGRAM + code) as process:
        assert line_of(process) == "ready"
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            process.send_signal(signal.SIGINT)
            pause = time.monotonic() + chance.choice([0.0005, 0.003, 0.02, 0.06])
            until(lambda pause=pause: time.monotonic() > pause)
        out, err = process.communicate(timeout=20)
    assert out.replace("ready\n", "") == "done True True\n", err
    assert process.returncode == 0, err
