"""`wholepod gangs` against a server that answers what the test says."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
from click.testing import CliRunner, Result

from scheduler.cli import main
from scheduler.core.gangs.view import GangList, GangState, GangView, MemberState, MemberView
from scheduler.observe.gang_list import list_gangs
from scheduler.show_gangs import age, printable
from tests.unit.core.gangs.words import cluster, member

NOW = "2026-01-01T01:00:00.000+00:00"
HOLDING = GangView(
    namespace="ml",
    name="train",
    source="annotations",
    strategy="hoarding",
    state=GangState.HOLDING,
    min_count=3,
    existing=2,
    placed=2,
    bound=0,
    priority=0,
    created="2026-01-01T00:20:00Z",
    waits_for="1 more member to exist",
    members=(
        MemberView("train-0", MemberState.HELD, "node-1"),
        MemberView("train-1", MemberState.WAITING, why="a\x1b[2Jb\u202e"),
    ),
)
BOUND = msgspec.structs.replace(
    HOLDING,
    namespace="web",
    name="evil\x1b]0;title\x07\n",
    strategy="atomic",
    state=GangState.BOUND,
    existing=3,
    placed=3,
    bound=3,
    waits_for="",
    members=(),
)

Ask = Callable[..., Result]


@pytest.fixture
def answer() -> dict[str, object]:
    """{"status", "body"} of the server."""
    return {"status": 200, "body": msgspec.json.encode(GangList(NOW, True, (HOLDING, BOUND)))}


@pytest.fixture
def ask(answer: dict[str, object]) -> Iterator[Ask]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(str(answer["status"])) if self.path == "/debug/gangs" else 404)
            self.end_headers()
            body = answer["body"]
            assert isinstance(body, bytes)
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield lambda *arguments: CliRunner().invoke(
            main, ["gangs", f"--url=http://127.0.0.1:{server.server_port}", *arguments]
        )
        server.shutdown()
        thread.join()


def test_the_table(ask: Ask) -> None:
    result = ask()
    assert result.exit_code == 0
    rows = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert rows == [
        ["NAMESPACE", "NAME", "STRATEGY", "STATE", "PLACED", "EXIST", "MIN", "AGE", "WAITS FOR"],
        ["ml", "train", "hoarding", "holding", "2", "2", "3", "40m", "1 more member to exist"],
        ["web", r"evil\x1b]0;title\x07\n", "atomic", "bound", "3", "3", "3", "40m"],
        [""],
        ["2 gangs: 1 holding, 1 bound"],
    ]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["-n", "ml"], ["train"]),
        (["--state", "bound"], [BOUND.name]),
        (["--strategy", "hoarding", "--strategy", "optimistic"], ["train"]),
        (["--strategy", "atomic", "-n", "ml"], []),
        (["train"], ["train"]),
        (["ml/train"], ["train"]),
    ],
)
def test_filters(ask: Ask, arguments: list[str], names: list[str]) -> None:
    result = ask("-o", "json", *arguments)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [gang["name"] for gang in found["gangs"]] == names
    assert found["leading"] is True


def test_a_name_shows_its_members(ask: Ask) -> None:
    result = ask("train")
    assert [line.split() for line in result.stdout.splitlines()[3:]] == [
        ["ml/train"],
        ["MEMBER", "STATE", "NODE", "WAITS", "FOR"],
        ["train-0", "held", "node-1"],
        ["train-1", "waiting", r"a\x1b[2Jb\u202e"],
    ]


def test_what_is_not_there(ask: Ask, answer: dict[str, object]) -> None:
    assert ask("--state", "planning").stdout == "None of 2 gangs is selected.\n"
    result = ask("train", "x/train", "more")
    assert (result.exit_code, result.stderr) == (1, "wholepod: no such gang: more, x/train\n")
    answer["body"] = msgspec.json.encode(GangList(NOW, False, ()))
    result = ask()
    assert (result.exit_code, result.stdout) == (0, "No gangs.\n")
    assert "does not lead" in result.stderr


def test_nothing_steers_the_terminal(ask: Ask) -> None:
    for arguments in ([], ["train"], ["-o", "json"]):
        assert all(c.isprintable() or c == "\n" for c in ask(*arguments).stdout)
        assert ask("-o", "json").stdout.isascii()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--state", "lost"], 2, "--state must be one of incomplete, waiting, planning, holding, claimed"),
        (["--strategy", "greedy"], 2, "--strategy must be one of atomic, hoarding, optimistic, got 'greedy'"),
        (["a/b/c"], 2, "'a/b/c' is no name of a gang"),
        (["x/train", "-n", "ml"], 2, "'x/train' is not in namespace 'ml'"),
        (["--url", "localhost:10259"], 2, "--url must be like http://HOST:PORT, got 'localhost:10259'"),
        (["--ca-file", "/missing"], 2, "cannot use --ca-file /missing"),
        (["--token-file", "/missing"], 2, "--token-file needs an https --url"),
        (
            ["--url", "https://127.0.0.1:1", "--token-file", "/missing"],
            2,
            "cannot read --token-file /missing",
        ),
        (["--url", "https://127.0.0.1:1", "--token-file", "/dev/null"], 2, "--token-file /dev/null holds no"),
        (["--url", "http://127.0.0.1:1"], 3, "no scheduler answers at http://127.0.0.1:1: "),
    ],
)
def test_errors(ask: Ask, arguments: list[str], code: int, said: str) -> None:
    result = ask(*arguments)
    assert result.exit_code == code
    assert result.stderr.startswith(f"wholepod: {said}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"404", "answered 404 Not Found"),
        (200, b"<html>", "something else"),
        (401, b"who\x1b are you?\n", r"refuses (401): who\x1b are you?; see --token-file"),
    ],
)
def test_other_servers(ask: Ask, answer: dict[str, object], status: int, body: bytes, said: str) -> None:
    answer |= {"status": status, "body": body}
    result = ask()
    assert result.exit_code == 3
    assert said in result.stderr


def test_ages() -> None:
    for created, said in (
        ("2026-01-01T00:59:15Z", "45s"),
        ("2026-01-01T01:00:05Z", "0s"),
        ("2025-12-31T20:00:00Z", "5h"),
        ("2025-12-01T01:00:00Z", "31d"),
        ("", "?"),
        ("2026-01-01T00:00:00", "?"),
    ):
        assert age(created, NOW) == said


def test_printable() -> None:
    assert printable("größe 1\t\x9b\u2066") == r"größe 1\t\x9b\u2066"


async def test_all_gangs_are_listed_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.observe.gang_list.MEMBERS_AT_ONCE", 2)
    engine = cluster("64Gi")
    names = [f"g{i}" for i in (3, 1, 4, 0, 2)]
    for name in names:
        engine.upsert_pod(member(f"{name}-0", gang=name).obj())
    listed = await list_gangs(engine, frozenset, leads=lambda: True)
    assert [gang.name for gang in listed.gangs] == sorted(names)
    assert listed.leading
