"""The head's directory: names, jobs and the table of nodes; what it refuses, its limits."""

from __future__ import annotations

import pytest

from clusters import Cluster, identity, joined
from freehold.core.head import directory, tables
from freehold.errors import from_wire

# -- names ----------------------------------------------------------------------------------------


def test_a_name_is_given_once_found_listed_and_forgotten() -> None:
    cluster = joined("a", "b")
    assert cluster.says("name", namespace="x", name="n", value=b"1") == ([], {})
    assert cluster.says("name", "b", namespace="x", name="n", value=b"1") == ([], {})
    error, _ = cluster.says("name", "b", namespace="x", name="n", value=b"2")
    assert isinstance(from_wire(*error), ValueError)
    assert error[0] == "NameTaken"
    assert cluster.says("name", namespace="y", name="n", value=b"2") == ([], {})
    found = cluster.says("find", "b", namespace="x", name="n")
    assert found == ([], {"found": True, "value": b"1"})
    assert cluster.says("names") == ([], {"names": [["x", "n"], ["y", "n"]]})
    assert cluster.says("names", namespace="y") == ([], {"names": [["y", "n"]]})
    assert cluster.says("names", after=["x", "n"]) == ([], {"names": [["y", "n"]]})
    assert cluster.says("forget", namespace="x", name="n", value=b"9")[1] == {"found": False}
    assert cluster.says("forget", namespace="x", name="n")[1] == {"found": True}
    assert cluster.says("forget", namespace="x", name="n")[1] == {"found": False}
    assert cluster.says("find", namespace="x", name="n")[1] == {"found": False, "value": b""}
    cluster.head.check()


def test_a_name_is_answered_when_it_is_durable_and_so_are_questions_about_it() -> None:
    cluster = joined("a")
    cluster.disk = False
    cluster.ask("a", 1, "name", namespace="", name="n", value=b"1")
    cluster.ask("a", 2, "find", namespace="", name="n")
    cluster.deliver()
    assert not cluster.answers
    cluster.flush()
    assert cluster.answer("a", 1) == ([], {})
    assert cluster.answer("a", 2)[1]["value"] == b"1"


def test_names_and_jobs_survive_the_head() -> None:
    cluster = joined("a")
    cluster.says("name", namespace="x", name="n", value=b"1")
    cluster.says("job", job=b"j", info={"user": "me", "tags": [1, 2.5, None, True]}, alive=True)
    before = cluster.says("jobs")
    cluster.stop_head()
    cluster.start_head()
    cluster.connect("a")
    cluster.deliver()
    assert cluster.says("find", namespace="x", name="n")[1]["value"] == b"1"
    assert cluster.says("jobs") == before


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("steal", {}),
        ("name", {"namespace": "x", "name": "n"}),
        ("name", {"namespace": "x", "name": "n", "value": "text"}),
        ("name", {"namespace": "x", "name": "a\0b", "value": b"1"}),
        ("name", {"namespace": "x", "name": "n" * 1001, "value": b"1"}),
        ("find", {"namespace": "x", "name": "n", "more": 1}),
        ("names", {"after": [1]}),
        ("job", {"job": b"j" * 65, "info": {}, "alive": True}),
        (
            "job",
            {"job": b"j", "info": {"deep": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}, "alive": True},
        ),
        ("retire", {"node": "a"}),
        ("group", {"group": b"g", "bundles": []}),
        ("group", {"group": b"g", "bundles": [{"CPU": -1.0}]}),
        ("group", {"group": b"g", "bundles": [{"CPU": 0.0}]}),
        ("group", {"group": b"g", "bundles": [{"CPU/aa": 1.0}]}),
        ("group", {"group": b"g", "bundles": [{"CPU": 1.0}], "strategy": "LOOSE"}),
    ],
)
def test_a_malformed_question_is_an_error_that_says_so(
    verb: str, fields: dict[str, object]
) -> None:
    cluster = joined("a")
    writes = cluster.store.writes
    error, _ = cluster.says(verb, **fields)
    assert error[0] == "ProtocolError"
    assert error[1]
    assert cluster.store.writes == writes


def test_values_namespaces_and_jobs_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = joined("a")
    largest = directory.VALUE_BYTES_MAX
    error, _ = cluster.says("name", namespace="x", name="n", value=bytes(largest + 1))
    assert error[0] == "LimitExceeded"
    assert cluster.says("names")[1] == {"names": []}
    assert cluster.says("name", namespace="x", name="n", value=bytes(largest))[0] == []
    values = [value for value, _ in cluster.store.entries.values()]
    assert max(len(value) for value in values) <= tables.RECORD_BYTES_MAX
    monkeypatch.setattr(directory, "NAMES_MAX", 3)
    for name in "op":
        assert cluster.says("name", namespace="x", name=name, value=b"1")[0] == []
    error, _ = cluster.says("name", namespace="x", name="q", value=b"1")
    assert error[0] == "LimitExceeded"
    assert cluster.says("name", namespace="x", name="p", value=b"1")[0] == []  # it has that one
    assert cluster.says("name", namespace="y", name="q", value=b"1")[0] == []
    error, _ = cluster.says("job", job=b"j", info={"x": "y" * (1 << 18)}, alive=True)
    assert error[0] == "LimitExceeded"
    assert cluster.says("jobs")[1] == {"jobs": []}


# -- jobs -----------------------------------------------------------------------------------------


def jobs(cluster: Cluster) -> dict[bytes, bool]:
    return {job["job"]: job["alive"] for job in cluster.says("jobs")[1]["jobs"]}


def test_a_job_ends_with_its_node_and_what_was_made_for_it_goes() -> None:
    cluster = joined("a", "b")
    cluster.says("job", "b", job=b"j", info={}, alive=True)
    cluster.says("job", "a", job=b"k", info={}, alive=True)
    for number in range(130):  # more than one transaction takes
        cluster.says("name", "b", namespace="x", name=f"{number}", value=b"1", job=b"j")
    cluster.says("name", namespace="x", name="kept", value=b"1", job=b"k")
    cluster.says("group", "b", group=b"g", bundles=[{"CPU": 1.0}], job=b"j")
    assert jobs(cluster) == {b"j": True, b"k": True}
    cluster.kill("b")
    cluster.deliver()
    assert jobs(cluster) == {b"k": True, b"j": False}
    assert cluster.says("names")[1] == {"names": [["x", "kept"]]}
    assert cluster.says("groups")[1] == {"groups": []}
    assert sum(key.startswith(b"name/") for key in cluster.store.entries) == 1
    cluster.head.check()


def test_a_job_that_has_ended_does_not_begin_again() -> None:
    cluster = joined("a")
    cluster.says("job", job=b"j", info={}, alive=True)
    for _ in range(2):
        assert cluster.says("job", job=b"j", info={}, alive=False) == ([], {})
    assert jobs(cluster) == {b"j": False}
    error, _ = cluster.says("job", job=b"j", info={}, alive=True)
    assert "its driver has ended" in error[1]


def test_only_so_many_ended_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "JOBS_ENDED_MAX", 2)
    cluster = joined("a")
    for name in (b"1", b"2", b"3"):
        cluster.says("job", job=name, info={}, alive=True)
        cluster.says("job", job=name, info={}, alive=False)
    assert list(jobs(cluster)) == [b"2", b"3"]
    assert sum(key.startswith(b"job/") for key in cluster.store.entries) == 2


def test_the_table_of_nodes_and_the_snapshot_tell_what_is() -> None:
    cluster = joined("a", "b")
    fields = cluster.says("nodes")[1]
    assert [(row["node"], row["state"], row["connected"]) for row in fields["nodes"]] == [
        (identity("a"), "member", True),
        (identity("b"), "member", True),
    ]
    assert (fields["epoch"], fields["dead"]) == (2, 0)
    snapshot = cluster.head.snapshot()
    assert snapshot["nodes"] == {identity("a").hex(): "member", identity("b").hex(): "member"}
    assert snapshot["unwritten"] == 0
