"""The local cluster's machines: started, told apart, killed, restarted, and nothing is left.

Here ``freehold`` is ``stand_in.py``, which starts processes of the right names and prints what the
command prints, so that what is tested is the care for processes alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.netns import Network
from cluster.processes import eventually
from freehold.ext import cluster as local
from freehold.ext.cluster import Cluster, ClusterError
from sessions import SOURCE, alive, line_of

TESTS = str(Path(__file__).resolve().parents[1])
START = """
from cluster.test_cluster import use_stand_in
from freehold.ext import cluster
use_stand_in(setattr)
with cluster.Cluster(nodes=2) as made:
    print(made.directory, *(pid for each in made.machines for pid in each.pids()), flush=True)
    input()
"""


def use_stand_in(change: Callable[[object, str, object], None]) -> None:
    """Have machines started by the stand-in."""
    there = f"sys.path.append({TESTS!r})\nfrom cluster.stand_in import main"
    change(local, "PROGRAM", local.PROGRAM.replace("from freehold.cli import main", there))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, home: str) -> Iterator[None]:
    use_stand_in(monkeypatch.setattr)
    monkeypatch.setenv("MARK", f"{home}/mark")
    Path(home, "mark").touch()  # ports are free
    yield
    Path(home, "mark").unlink(missing_ok=True)


def all_pids(made: Cluster) -> list[int]:
    return [pid for machine in made.machines for pid in machine.pids()]


def name(pid: int) -> str:
    return psutil.Process(pid).name()


def test_a_cluster_has_a_head_and_nodes_and_leaves_nothing() -> None:
    with Cluster(nodes=3) as made:
        assert (made.address, made.token) == ("127.0.0.1:1", "fh1-x")
        assert made.machines[0].node == "0a"
        assert len({machine.node for machine in made.machines}) == 3
        assert [len(machine.pids("freehold-node")) for machine in made.machines] == [1, 1, 1]
        assert [len(machine.pids("freehold-head")) for machine in made.machines] == [1, 0, 0]
        extra = made.add_node(num_cpus=4, resources={"gpu": 1}, labels={"zone": "a"})
        assert extra.index == 3
        assert extra.alive
        pids = all_pids(made)
    assert not any(map(alive, pids))
    assert not os.path.exists(made.directory)
    made.stop()  # twice does not matter


def test_programs_on_a_machine_know_the_cluster() -> None:
    with Cluster(nodes=1, env={"SPAM": "eggs"}) as made:
        code = "import os; print(*map(os.environ.get, ['FREEHOLD_ADDRESS', 'SPAM', 'TMPDIR']))"
        with made.machines[0].popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as told:
            address, spam, directory = told.communicate()[0].split()
    assert (address, spam) == (made.address, "eggs")
    assert directory == made.machines[0].directory != tempfile.gettempdir()


def test_a_killed_machine_is_gone_and_comes_back() -> None:
    with Cluster(nodes=2) as made:
        before = made.machines[1].node
        pids = made.machines[1].pids()
        code = "import signal; print(1, flush=True); signal.pause()"
        driver = made.machines[1].popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert line_of(driver) == "1"
        made.kill_node(1)
        driver.communicate()
        assert driver.returncode == -signal.SIGKILL  # a machine's programs die with it
        assert not made.machines[1].alive
        assert made.machines[0].alive
        assert not any(map(alive, pids))
        assert made.restart(1).alive
        assert made.machines[1].node != before
        with pytest.raises(ClusterError, match="is running"):
            made.restart(1)


def test_a_machine_freezes_and_goes_on() -> None:
    with Cluster(nodes=2) as made:
        made.kill_node(1, signal.SIGSTOP)
        frozen = made.machines[1].pids()
        eventually(lambda: {psutil.Process(pid).status() for pid in frozen} == {"stopped"})
        assert made.machines[1].alive
        made.kill_node(1, signal.SIGCONT)
        eventually(lambda: "stopped" not in {psutil.Process(pid).status() for pid in frozen})
        made.kill_node(1, signal.SIGSTOP)  # the end of the cluster ends it all the same
    assert not any(map(alive, frozen))


def test_the_head_dies_alone() -> None:
    with Cluster(nodes=2) as made:
        made.kill_head()
        assert made.machines[0].alive
        assert made.machines[0].pids("freehold-head") == []
        with pytest.raises(ClusterError, match="no head"):
            made.kill_head()


def test_a_machine_leaves_in_good_order() -> None:
    with Cluster(nodes=2) as made:
        node = made.machines[1].pids("freehold-node")[0]
        assert name(node) == "freehold-node"
        assert not made.stop_node(1).alive
        assert not alive(node)


def test_a_start_that_fails_tells_what_the_command_said_and_leaves_nothing() -> None:
    made = Cluster(nodes=2, env={"FAIL": "refused"})
    with pytest.raises(ClusterError, match="machine 0: Error: the head refuses"):
        made.start()
    assert not os.path.exists(made.directory)
    with Cluster(nodes=1) as whole:
        whole.env["FAIL"] = "refused"
        with pytest.raises(ClusterError, match="machine 1: Error: the head refuses"):
            whole.add_node()
        assert whole.machines[0].alive


def test_a_port_that_is_taken_meanwhile_is_tried_anew(home: str) -> None:
    Path(home, "mark").unlink()  # the first port is not free
    with Cluster(nodes=1) as made:
        assert made.machines[0].alive


def test_a_killed_program_leaves_no_cluster() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, TESTS])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    program = subprocess.Popen([sys.executable, "-c", START], env=environment, text=True, **pipes)
    directory, *pids = line_of(program).split()
    assert len(pids) == 5  # two starters, a head, two nodes
    program.kill()
    program.communicate()
    eventually(lambda: not any(alive(int(pid)) for pid in pids), what="its processes have ended")
    for entry in Path(directory).rglob("*.log"):
        assert "Traceback" not in entry.read_text()
    subprocess.run(["rm", "-r", directory], check=True)  # nobody was left to do it


def test_machines_are_in_the_namespaces_given(network: Callable[..., Network]) -> None:
    hosts = network(2)
    with Cluster(nodes=2, **hosts.places()) as made:
        for host in hosts.hosts:
            assert hosts.processes(host) == made.machines[host].pids()
            assert len(hosts.processes(host)) > 1


def test_impossible_clusters_are_refused_at_once() -> None:
    wrong: list[dict[str, Any]] = [
        {"nodes": 0},
        {"hosts": ["127.0.0.1"]},
        {"namespaces": ["a", "b"]},
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):
            Cluster(**arguments)
