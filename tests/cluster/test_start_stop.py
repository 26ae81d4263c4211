"""Clusters as a person makes them: commands and programs, on machines that share one loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from cluster.machines import HOST, Cluster, Machine, free_port
from freehold.proc.token import Token
from sessions import alive, until

ADD = """
import freehold as fh
fh.init(address={address!r})
@fh.remote
def add(x): return x + 1
print(fh.get(add.remote(1), timeout=20), len(fh.get(fh.put(b"x" * 1_000_000))), flush=True)
{then}
fh.shutdown()
"""
ADD_AUTO = ADD.format(address="auto", then="")
WAITING = ADD.format(address="auto", then="input()")


def join(machine: Machine, cluster: Cluster, *words: str) -> str:
    words = ("start", "--address", cluster.address, "--token", cluster.token, *words)
    out = machine.must(*words)
    return out.split()[4]


# -- starting and stopping ------------------------------------------------------------------------


def test_two_machines_make_a_cluster(cluster: Cluster, there: Machine) -> None:
    labels = json.dumps({"zone": "b"})
    joined = join(
        there, cluster, "--num-cpus", "2", "--labels", labels, "--resources", '{"gpu": 1}'
    )
    members = cluster.machine.members()
    assert len(members) == 2
    row = members[joined]
    assert (row["state"], row["connected"], row["labels"]) == ("member", True, {"zone": "b"})
    assert row["total"] == {"CPU": 2.0, "gpu": 1.0}
    out = cluster.machine.must("status")
    assert "0 of 2 CPU, 0 of 1 gpu" in out
    assert "zone=b" in out
    assert there.run(ADD_AUTO) == "2 1000000"  # it knows the token since it has joined
    assert "stopped: node" in there.must("stop")
    assert there.empty()
    assert joined not in cluster.machine.members()
    stopped = cluster.machine.must("stop")
    assert "stopped: node" in stopped
    assert "stopped: head" in stopped
    assert cluster.machine.empty()
    assert "nothing runs here" in cluster.machine.must("stop")


def test_the_head_s_node_serves_several_programs_at_once(cluster: Cluster) -> None:
    here = cluster.machine
    with here.program(WAITING) as one, here.program(WAITING) as two:
        for program in (one, two):
            assert program.stdout is not None
            assert program.stdout.readline() == "2 1000000\n"
        pids = {job["info"]["pid"] for job in here.jobs() if job["alive"]}
        assert pids == {one.pid, two.pid}
        one.kill()  # its node sees to what it can no longer do
        until(lambda: [job["info"]["pid"] for job in here.jobs() if job["alive"]] == [two.pid])
        assert here.run(ADD_AUTO) == "2 1000000"
        assert two.communicate("\n", timeout=20) == ("", "")
    assert two.returncode == 0
    assert not [job for job in here.jobs() if job["alive"]]
    (node,) = here.status()["nodes"]
    assert (node["objects"]["count"], node["references"]) == (0, 0)
    assert not list(Path(here.home).glob("*/d*.sock"))


def test_a_program_on_a_machine_without_a_node_brings_one(
    cluster: Cluster, elsewhere: Machine
) -> None:
    code = f"""
import freehold as fh
fh.init(address="localhost:{cluster.port}")
print(fh.status()["resources"]["CPU"]["total"], len(fh.get(fh.put(b"x" * 1_000_000))), flush=True)
input()
"""
    with elsewhere.program(code, FREEHOLD_TOKEN=cluster.token) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "0.0 1000000\n"
        totals = sorted(node["total"]["CPU"] for node in cluster.machine.members().values())
        assert totals == [0.0, 1.0]
        assert program.communicate("\n", timeout=20) == ("", "")
    assert elsewhere.empty()
    until(lambda: len(cluster.machine.members()) == 1)


def test_a_token_in_a_private_file_or_the_environment(
    cluster: Cluster, there: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(cluster.token + "\n")
    file.chmod(0o644)
    words = ("start", "--address", cluster.address, "--num-cpus", "1")
    code, _, err = there.call(*words, "--token-file", str(file))
    assert code == 1
    assert "chmod 600" in err
    file.chmod(0o600)
    there.must(*words, FREEHOLD_TOKEN_FILE=str(file))
    there.must("stop")
    there.must(*words, FREEHOLD_TOKEN=cluster.token)
    assert len(cluster.machine.members()) == 2


def test_a_cluster_without_tls(here: Machine, there: Machine) -> None:
    port = free_port()
    token = here.start_head(port, "--num-cpus", "1", "--no-tls")
    assert not Token.parse(token).tls
    there.must("start", "--address", f"{HOST}:{port}", "--token", token, "--num-cpus", "1")
    assert len(here.members()) == 2
    assert there.run(ADD_AUTO) == "2 1000000"


def test_in_the_foreground_it_stops_with_the_command(here: Machine) -> None:
    words = ("start", "--head", "--host", HOST, "--port", str(free_port()), "--block")
    with here.begin(*words) as command:
        until(lambda: len(here.records()) == 2, 20)
        assert command.stdout is not None
        while "init(" not in command.stdout.readline():
            pass
        command.send_signal(signal.SIGTERM)
        _, err = command.communicate(timeout=20)
    assert (command.returncode, err) == (0, "")
    assert here.empty()


def test_in_the_foreground_it_tells_of_a_daemon_that_dies(here: Machine) -> None:
    words = ("start", "--head", "--host", HOST, "--port", str(free_port()), "--block")
    with here.begin(*words) as command:
        until(lambda: len(here.records()) == 2, 20)
        assert command.stdout is not None
        while "init(" not in command.stdout.readline():
            pass
        os.kill(here.records()["head"]["pid"], signal.SIGKILL)
        _, err = command.communicate(timeout=20)
    assert command.returncode == 1
    assert "the head daemon" in err
    assert here.empty()


def test_what_a_dead_daemon_left_is_removed(cluster: Cluster) -> None:
    here = cluster.machine
    pid = here.records()["head"]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    here.call("status")
    assert set(here.records()) == {"node"}


def test_a_killed_node_leaves_nothing_and_is_missed(cluster: Cluster, there: Machine) -> None:
    joined = join(there, cluster, "--num-cpus", "1")
    os.kill(there.records()["node"]["pid"], signal.SIGKILL)
    until(there.empty, 10)
    until(lambda: joined not in cluster.machine.members(), 10)


# -- the head comes back, a node comes back, a node leaves ----------------------------------------


def test_a_killed_head_goes_on_with_its_store(
    here: Machine, there: Machine, tmp_path: Path
) -> None:
    port, store = free_port(), str(tmp_path / "head.db")
    token = here.start_head(port, "--num-cpus", "1", "--store", store)
    there.must("start", "--address", f"{HOST}:{port}", "--token", token, "--num-cpus", "1")
    before = set(here.members())
    assert len(before) == 2
    code, _, err = here.call("start", "--head", "--host", HOST, "--port", "1", "--store", store)
    assert code == 1
    assert "open in another process" in err
    os.kill(here.records()["head"]["pid"], signal.SIGKILL)
    assert here.start_head(port, "--store", store) == token
    until(lambda: all(row["connected"] for row in here.members().values()), 10)
    assert set(here.members()) == before  # under the ids that they had
    assert there.run(ADD_AUTO) == "2 1000000"


def test_a_node_that_was_given_up_comes_back_as_another(cluster: Cluster, there: Machine) -> None:
    joined = join(there, cluster, "--num-cpus", "1")
    pid = there.records()["node"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: joined not in cluster.machine.members(), 20)
    os.kill(pid, signal.SIGCONT)
    until(lambda: len(cluster.machine.members()) == 2, 20)
    (again,) = set(cluster.machine.members()) & {there.records()["node"]["node"]}
    assert again != joined
    assert there.records()["node"]["pid"] == pid
    assert there.run(ADD_AUTO) == "2 1000000"
    (log,) = Path(there.home).glob("*/log")
    assert "has started over" in log.read_text()


def test_a_drained_node_leaves(cluster: Cluster, there: Machine) -> None:
    joined = join(there, cluster, "--num-cpus", "1")
    assert joined in cluster.machine.must("drain", joined[:6])
    until(there.empty, 10)
    assert joined not in cluster.machine.members()
    code, _, err = cluster.machine.call("drain", joined)
    assert code == 1
    assert "0 nodes have an id" in err


# -- what goes wrong is named, within seconds -----------------------------------------------------


def test_a_node_that_cannot_join_says_why(cluster: Cluster, there: Machine) -> None:
    wrong, nobody = Token.make(True).text, f"{HOST}:{free_port()}"
    plain = Token.parse(cluster.token)._replace(tls=False).text
    for address, token, says in [
        (cluster.address, wrong, "another secret"),
        (cluster.address, cluster.token[:-2], "the token is damaged"),
        (cluster.address, "sesame", "this is no token"),
        (cluster.address, "", "no token for the cluster"),
        (cluster.address, plain, "TLS"),
        (nobody, cluster.token, "Connection refused"),
        ("nowhere", cluster.token, "is no address"),
    ]:
        begun = time.monotonic()
        code, out, err = there.call("start", "--address", address, FREEHOLD_TOKEN=token)
        assert (code, out) == (1, ""), says
        assert says in err
        assert "Traceback" not in err
        assert time.monotonic() - begun < 10, says
        assert there.empty()


def test_a_head_that_answers_nothing_is_given_up(there: Machine) -> None:
    with socket.create_server((HOST, 0)) as mute:
        address = f"{HOST}:{mute.getsockname()[1]}"
        code, _, err = there.call("start", "--address", address, "--token", Token.make(False).text)
    assert code == 1
    assert "has not answered within 3 s" in err
    assert there.empty()


def test_a_port_in_use_is_named(cluster: Cluster, there: Machine) -> None:
    taken = str(cluster.port)
    code, _, err = there.call("start", "--head", "--host", HOST, "--port", taken)
    assert code == 1
    assert f"{cluster.address}: Address already in use" in err
    words = ("start", "--address", cluster.address, "--token", cluster.token, "--port", taken)
    code, _, err = there.call(*words, "--host", HOST)
    assert code == 1
    assert f"{cluster.address}: Address already in use" in err
    until(there.empty)  # its fork server was there already


PROGRAM_ERRORS = """
import freehold as fh
for options, kind in [
    ({{"address": {address!r}, "token": {wrong!r}}}, fh.AuthenticationError),
    ({{"address": {address!r}, "token": "sesame"}}, fh.AuthenticationError),
    ({{"address": {address!r}}}, fh.AuthenticationError),
    ({{"address": "{nobody}", "token": {wrong!r}}}, fh.ClusterUnreachable),
    ({{"address": "auto"}}, fh.ClusterUnreachable),
]:
    try:
        fh.init(**options)
    except ConnectionError as error:
        assert type(error) is kind, error
    else:
        raise AssertionError(options)
    assert not fh.is_initialized()
try:
    fh.init(address={address!r}, num_cpus=1)
except ValueError as error:
    print(error)
"""


def test_a_program_that_cannot_join_gets_a_typed_error(
    cluster: Cluster, elsewhere: Machine
) -> None:
    code = PROGRAM_ERRORS.format(
        address=cluster.address, wrong=Token.make(True).text, nobody=f"{HOST}:{free_port()}"
    )
    assert "num_cpus is for `freehold start`" in elsewhere.run(code)
    assert elsewhere.empty()


def test_the_loss_of_the_standing_node_is_a_typed_error(cluster: Cluster) -> None:
    here = cluster.machine
    code = ADD.format(
        address="auto",
        then="input()\ntry: fh.get(add.remote(1), timeout=20)\n"
        "except fh.NodeDied as error: print(type(error).__name__)",
    )
    with here.program(code) as program:
        assert program.stdout is not None
        program.stdout.readline()
        pid = here.records()["node"]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
        out, err = program.communicate("\n", timeout=20)
    assert (program.returncode, out, err) == (0, "NodeDied\n", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "either --head or --address"),
        (("--head", "--address", "x:1"), "either --head or --address"),
        (("--address", "x:1", "--store", "f"), "--store goes with --head"),
        (("--head", "--labels", "[]"), "no JSON object"),
        (("--head", "--labels", '{"a": 1}'), "labels are texts"),
        (("--head", "--resources", "{"), "not JSON"),
        (("--head", "--resources", '{"CPU": 1}'), "resources must be"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    here: Machine, words: tuple[str, ...], says: str
) -> None:
    code, _, err = here.call("start", *words)
    assert code == 2
    assert says in " ".join(err.split())
