"""What tasks print appears at the driver: prefixed, in the right stream, repeats folded."""

from __future__ import annotations

import re

import pytest

from sessions import run_script, start_script

PROGRAM = """
import sys, freehold as fh
fh.init(num_cpus=2)

@fh.remote
def say(text, stream="stdout"):
    print(text, file=getattr(sys, stream))
"""


def test_lines_are_prefixed_with_name_and_pid() -> None:
    out = run_script(PROGRAM + "fh.get(say.remote('hello'))\nfh.shutdown()")
    assert re.fullmatch(r"\(say pid=\d+\) hello\n", out)


def test_the_last_lines_before_the_end_are_shown() -> None:
    for _ in range(5):
        out = run_script(PROGRAM + "fh.get([say.remote(n) for n in range(20)])")
        assert sorted(re.findall(r"\) (\d+)$", out, re.MULTILINE), key=int) == [
            str(n) for n in range(20)
        ]


def test_the_name_is_that_of_the_function_that_printed() -> None:
    code = """
    @fh.remote
    def other(text):
        print(text)
    for _ in range(3):
        fh.get([say.remote("from say"), other.remote("from other")])
    fh.get([fh.remote(lambda: None).remote() for _ in range(10)])
    for _ in range(3):
        fh.get([say.remote("from say"), other.remote("from other")])
    """
    out = run_script(PROGRAM + "\n".join(line[4:] for line in code.splitlines()))
    for name, text in re.findall(r"\((\S+) pid=\d+\) from (\w+)", out):
        assert name == text


def test_standard_error_goes_to_standard_error() -> None:
    with start_script(PROGRAM + "fh.get(say.remote('oops', 'stderr'))") as process:
        out, err = process.communicate(timeout=20)
    assert out == ""
    assert re.fullmatch(r"\(say pid=\d+\) oops\n", err)


def test_repeats_are_folded() -> None:
    out = run_script(PROGRAM + "fh.get([say.remote('again') for _ in range(50)])\nfh.shutdown()")
    lines = out.splitlines()
    assert lines[0].endswith(") again")
    shown = sum(line.endswith(") again") for line in lines)
    folded = sum(int(n) for n in re.findall(r"above (\d+) times", out)) + out.count("above once")
    assert shown + folded == 50
    assert shown < 25


def test_text_of_all_kinds() -> None:
    code = """
    @fh.remote
    def odd():
        print("ünïcödé → \\N{SNOWMAN}")
        print("no newline", end="")
        sys.stdout.flush()
        import os
        os.write(1, b"\\n\\xff raw\\n")
        os.system("echo from a child")
        print("x" * 200_000)
    fh.get(odd.remote())
    """
    out = run_script(PROGRAM + "\n".join(line[4:] for line in code.splitlines()))
    for text in ("ünïcödé → ☃", "no newline", "\\xff raw", "from a child"):
        assert re.search(rf"^\(odd pid=\d+\) {re.escape(text)}$", out, re.MULTILINE), out[:2000]
    assert out.count("x" * 1000) >= 190


def test_lines_that_are_not_ended_or_written_over() -> None:
    code = """
    @fh.remote
    def half(text, stream="stdout"):
        print(text, end="", file=getattr(sys, stream), flush=True)
    @fh.remote
    def bar():
        for step in range(100):
            print(f"\\r{step} %", end="", flush=True)
        print()
    fh.get([half.options(num_cpus=2).remote("half a line"), say.options(num_cpus=2).remote("whole"),
            bar.options(num_cpus=2).remote(), half.options(num_cpus=2).remote("the end")])
    """
    out = run_script(PROGRAM + "\n".join(line[4:] for line in code.splitlines()))
    found = sorted(re.findall(r"^\((\w+) pid=\d+\) (.*)$", out, re.MULTILINE))
    assert found == [
        ("bar", "99 %"),
        ("half", "half a line"),
        ("half", "the end"),
        ("say", "whole"),
    ]


def test_logs_can_be_turned_off() -> None:
    code = PROGRAM.replace("num_cpus=2", "num_cpus=2, log_to_driver=False")
    assert run_script(code + "fh.get(say.remote('hello'))\nfh.shutdown()") == ""


@pytest.mark.parametrize("closed", ["sys.stdout.close()", "sys.stdout = None", "os.close(1)"])
def test_a_driver_without_standard_output(closed: str) -> None:
    code = f"""
import os
{closed}
fh.get([say.remote(n) for n in range(5)])
fh.shutdown()
"""
    options = () if "os.close" not in closed else ("-u",)
    with start_script(PROGRAM + code, *options) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0 or "os.close" in closed, err
    assert "Traceback" not in err


def test_who_waits_long_for_a_worker_is_told_on_what() -> None:
    code = """
    @fh.remote(num_cpus=2)
    class Hog:
        def stay(self):
            return 1

    hog = Hog.remote()
    fh.get(hog.stay.remote())
    ref = say.remote("late")
    print(fh.wait([ref], timeout=11.0)[0])
    del hog
    fh.get(ref)
    """
    with start_script(PROGRAM + "\n".join(line[4:] for line in code.splitlines())) as process:
        out, err = process.communicate(timeout=40)
    assert out.splitlines()[0] == "[]"
    assert re.fullmatch(
        r"\(freehold\) say has waited for 5 s: it needs 1 CPU: node \w+ has 0 of 2 CPU free, "
        r"the rest is in use by 1 x actor Hog\n",
        err,
    )
