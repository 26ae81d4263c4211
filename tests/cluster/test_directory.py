"""The directory without a cluster: an embedded node takes a head in when it is first asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import freehold as fh
from cluster.machines import HOST, Machine, free_port
from freehold.core import messages as m
from freehold.errors import NameTaken, ProtocolError, VersionMismatch
from freehold.proc import reach, session
from freehold.proc.near import Memory
from freehold.proc.questions import Questions
from freehold.proc.token import Token
from freehold.wire import auth
from sessions import until


@pytest.fixture
def questions(here: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Questions]:
    monkeypatch.setattr("tempfile.tempdir", here.home)
    fh.init(num_cpus=1)
    yield Questions(session.current())
    fh.shutdown()


def test_names_work_in_an_embedded_session(questions: Questions) -> None:
    name = {"namespace": "", "name": "lamp"}
    assert questions.ask("find", 5, **name) == {"found": False, "value": b""}
    assert questions.ask("name", 5, **name, value=b"v") == {}
    assert questions.ask("find", 5, **name) == {"found": True, "value": b"v"}
    assert questions.ask("names", 5) == {"names": [["", "lamp"]]}
    with pytest.raises(NameTaken, match="lamp"):
        questions.ask("name", 5, **name, value=b"other")
    with pytest.raises(ProtocolError, match="no verb"):
        questions.ask("fly", 5)
    assert questions.ask("forget", 5, **name) == {"found": True}
    (node,) = questions.ask("nodes", 5)["nodes"]
    assert (node["state"], node["total"]["CPU"]) == ("member", 1.0)


def test_a_session_that_is_its_own_head_still_works_and_rests(questions: Questions) -> None:
    questions.ask("names", 5)
    plus = fh.remote(lambda x: x + 1)
    assert fh.get([plus.remote(x) for x in range(50)], timeout=20) == list(range(1, 51))
    until(lambda: questions.ask("nodes", 5)["nodes"][0]["free"]["CPU"] == 1.0)


def test_a_store_in_memory_writes_all_or_none() -> None:
    memory = Memory()
    assert memory.write([], [[b"a", b"1"]]) == 1
    assert memory.write([[b"a", 0]], [[b"b", b"1"]]) == 0
    assert memory.write([[b"a", 1], [b"b", 0]], [[b"b", b"1"], [b"a", b""]]) == 2
    assert memory.entries == {b"b": (b"1", 2)}


def test_tokens_are_words_and_errors_in_them_are_found() -> None:
    for tls in (True, False):
        token = Token.make(tls)
        assert Token.parse(f" {token.text}\n") == token
        assert "secret" not in token.text
    word = token.text
    for wrong in ("", "fh1-", word[:-1], word + "A", word[:20] + "ä" + word[21:], "x" + word):
        with pytest.raises(fh.AuthenticationError):
            Token.parse(wrong)
    other = "B" if word[10] == "A" else "A"
    with pytest.raises(fh.AuthenticationError, match="damaged"):
        Token.parse(word[:10] + other + word[11:])


def test_another_version_is_named(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    token = Token.parse(here.start_head(port, "--num-cpus", "1"))
    head = f"{HOST}:{port}"
    assert reach.call(reach.peer_of(head), token) == ()
    monkeypatch.setattr(auth, "VERSION", m.VERSION + 1)
    with pytest.raises(VersionMismatch, match="version"):
        reach.call(reach.peer_of(head), token)
