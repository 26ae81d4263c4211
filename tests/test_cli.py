"""The command line, as a person calls it: in processes of its own, beside nodes of its own."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold
from freehold.cli import size
from freehold.ext.netns import forbidden

PROGRAM = """
import freehold as fh

fh.init(num_cpus=2, resources={"lamp": 3})

@fh.remote
class Counter:
    def keep(self, held):
        self.held = held

counter, value = Counter.remote(), fh.put(b"x" * 1_000_000)
fh.get(counter.keep.remote([value]))
print("ready", flush=True)
input()
"""


@pytest.fixture
def place() -> Iterator[str]:
    """Where the sessions of this test, and no others, have their directories."""
    with tempfile.TemporaryDirectory(prefix="fh-test-") as path:
        yield path


@pytest.fixture
def driver(place: str) -> Iterator[subprocess.Popen[str]]:
    """A running program with an actor that borrows a shared object."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TMPDIR": place},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
        program.communicate("\n", timeout=20)
    assert program.returncode == 0


def start(place: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "freehold", *words],
        env={**os.environ, "TMPDIR": place, "COLUMNS": "100", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(place: str, *words: str) -> tuple[int, str, str]:
    with start(place, *words) as command:
        out, err = command.communicate(timeout=60)
        return command.returncode, out, err


# --- status ---------------------------------------------------------------------------------------


def test_status_shows_a_running_node(place: str, driver: subprocess.Popen[str]) -> None:
    code, out, err = call(place, "status")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["lamp", "0", "of", "3", "in", "use"] in rows
    assert ["shared", "objects", "1,", "1", "MB", "(peak", "1", "MB)"] in rows
    assert [str(driver.pid), "driver", "up", "2", "1", "MB"] in rows  # the object and the actor
    assert ["actor", "leased", "Counter", "1"] in [row[1:] for row in rows]
    kinds = [row[1] for row in rows if row and row[0].isdigit()]
    assert kinds[:2] == ["node", "driver"]
    assert "worker" in kinds


def test_status_as_json_has_the_node_s_tables(place: str, driver: subprocess.Popen[str]) -> None:
    code, out, err = call(place, "status", "--json")
    assert (code, err) == (0, "")
    (node,) = json.loads(out)["nodes"]
    assert Path(node["dir"]).parent == Path(place)
    assert node["resources"]["CPU"]["total"] == 2.0
    assert node["objects"]["count"] == 1
    assert node["objects"]["bytes"] >= 1_000_000
    assert node["references"] == 3
    assert {"arena", "leases", "waiting", "queued", "retries", "deaths"} <= set(node)
    by_kind: dict[str, Any] = {process["kind"]: process for process in node["processes"]}
    assert by_kind["driver"]["pid"] == driver.pid
    assert by_kind["actor"]["counts"]["borrowed"] == 1


def test_looking_leaves_nothing_behind(place: str, driver: subprocess.Popen[str]) -> None:
    looks = [json.loads(call(place, "status", "--json")[1])["nodes"][0] for _ in range(3)]
    assert len({look["references"] for look in looks}) == 1
    assert len({json.dumps(look["objects"]) for look in looks}) == 1
    assert all(process["kind"] != "tool" for look in looks for process in look["processes"])


def test_every_node_is_listed(place: str, driver: subprocess.Popen[str]) -> None:
    program = "import freehold as fh; fh.init(num_cpus=1); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": place},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        nodes = json.loads(call(place, "status", "--json")[1])["nodes"]
        other.communicate(b"\n", timeout=20)
    pids = {p["pid"] for node in nodes for p in node["processes"] if p["kind"] == "driver"}
    assert pids == {driver.pid, other.pid}


def test_without_a_node_status_says_so_and_fails(place: str) -> None:
    code, out, err = call(place, "status")
    assert (code, out) == (1, "")
    assert "no freehold node" in err
    code, out, err = call(place, "status", "--json")
    assert (code, json.loads(out)) == (1, {"nodes": []})


def test_what_a_dead_session_left_is_passed_over(place: str) -> None:
    left = Path(place, f"freehold-{os.getuid()}-dead")
    left.mkdir(0o700)
    assert call(place, "status")[0] == 1
    (left / "secret").write_bytes(b"s" * 32)
    (left / "node.sock").touch()
    assert call(place, "status")[0] == 1


def test_a_node_that_cannot_be_asked_is_named(place: str, driver: subprocess.Popen[str]) -> None:
    (session,) = Path(place).glob("freehold-*")
    secret = session / "secret"
    right = secret.read_bytes()
    secret.write_bytes(bytes(32))
    code, out, _ = call(place, "status")
    assert code == 0
    assert "does not answer" in out
    assert str(session) in out
    secret.write_bytes(right)


def test_watch_looks_again_until_interrupted(place: str, driver: subprocess.Popen[str]) -> None:
    with start(place, "status", "--watch", "--every", "0.1", "--json") as watching:
        assert watching.stdout is not None
        looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=20)
    assert all(len(look["nodes"]) == 1 for look in looks)
    assert (watching.returncode, err) == (130, "")


def test_a_cluster_that_cannot_be_asked_is_an_error(place: str) -> None:
    code, out, err = call(place, "status", "--address", "127.0.0.1:1")
    assert (code, out) == (1, "")
    assert "no token for the cluster at 127.0.0.1:1" in err
    code, _, err = call(place, "status", "--address", "nowhere")
    assert code == 1
    assert "is no address" in err
    code, _, err = call(place, "drain", "abc")
    assert code == 1
    assert "belongs to none" in err


def test_a_cluster_whose_head_is_away_is_shown_as_such() -> None:
    from rich.console import Console

    from freehold.cli import view

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view({"clusters": [{"address": "h:1", "error": "no way"}], "nodes": []}))
    assert "its head does not answer: no way" in console.export_text()


def test_groups_and_detached_actors_are_shown() -> None:
    from rich.console import Console

    from freehold.cli import clusters

    group = {
        "group": "ab", "name": "pair", "strategy": "spread", "state": "waiting",
        "bundles": [[{"CPU": 2.0}, "0123456789abcdef"], [{"gpu": 1.0}, ""]],
    }  # fmt: skip
    actor = {
        "actor": "cd", "namespace": "actors/all", "name": "lamp", "node": "", "number": 2,
        "state": "waiting", "restarts_left": -1, "why": "no node is there",
    }  # fmt: skip
    cluster = {"address": "h:1", "nodes": [], "jobs": [], "groups": [group], "detached": [actor]}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*clusters.view(cluster))
    shown = console.export_text()
    assert "2 CPU on 01234567, 1 gpu" in shown
    assert "any number" in shown
    assert "waiting: no node is there" in shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_234_567, "1.23 MB"),
        (45_600_000_000, "45.6 GB"),
        (7 * 10**15, "7 PB"),
    ],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert size(count) == text


# --- the others -----------------------------------------------------------------------------------


def test_version_names_freehold_its_protocol_and_python(place: str) -> None:
    code, out, err = call(place, "version")
    assert (code, err) == (0, "")
    assert out.startswith(f"freehold {freehold.__version__}, protocol ")
    assert ".".join(map(str, sys.version_info[:2])) in out
    assert call(place, "--version")[1] == f"freehold {freehold.__version__}\n"


def test_help_lists_the_commands_and_imports_none(place: str) -> None:
    program = (
        "import sys; from freehold.cli import main; main(['--help'], standalone_mode=False); "
        "print(*sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    for command in ("bench", "demo", "drain", "start", "status", "stop", "version"):
        assert f"\n  {command} " in out
    assert not {"rich", "freehold.ext", "freehold.cli.cluster", "freehold.proc.host"} & set(
        out.splitlines()[-1].split()
    )


def test_an_unknown_command_is_a_usage_error(place: str) -> None:
    code, _, err = call(place, "fly")
    assert code == 2
    assert "No such command 'fly'" in err


def test_bench_is_mounted(place: str) -> None:
    code, out, _ = call(place, "bench", "--help")
    assert code == 0
    assert "--quick" in out


def test_demo_of_a_small_tree_is_right(place: str, tmp_path: Path) -> None:
    for number in range(40):
        words = " ".join(f"word_{number * step % 97}" for step in range(400))
        (tmp_path / f"{number}.py").write_text(f"def f_{number}():\n    return {words!r}\n")
    code, out, err = call(place, "demo", str(tmp_path))
    assert (code, err) == (0, "")
    assert "right: equal to the plain computation, and nothing left" in out
    assert "(SIGKILL)" in out
    assert not list(Path(place).iterdir())


def test_demo_on_three_nodes_survives_the_death_of_one(place: str, tmp_path: Path) -> None:
    for number in range(60):
        words = " ".join(f"word_{number * step % 97}" for step in range(4000))
        (tmp_path / f"{number}.py").write_text(f"def f_{number}():\n    return {words!r}\n")
    code, out, err = call(place, "demo", str(tmp_path), "--nodes", "3")
    assert (code, err) == (0, "")
    assert "right: equal to the plain computation, and nothing left" in out
    assert "run again" in out
    ground = "loopback device" if forbidden() else "network namespaces"
    assert re.search(rf"nodes on\W+(the )?{ground}", out)
    assert not list(Path(place).iterdir())


def test_demo_of_a_tree_without_sources_is_a_usage_error(place: str, tmp_path: Path) -> None:
    code, _, err = call(place, "demo", str(tmp_path))
    assert code == 2
    assert "no source files" in err
