"""Logs: one line an event, of our own and of libraries alike, at the level that is set."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from scheduler.observe import logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, access = root.handlers[:], root.level, logging.getLogger("aiohttp.access").level
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("aiohttp.access").setLevel(access)
    structlog.reset_defaults()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    early = structlog.get_logger("early")
    logs.configure("info", "json")
    early.info("bound", pod="default/a", node="n")
    logging.getLogger("library").warning("slow %s", "thing")
    try:
        raise ValueError("bad day")
    except ValueError:
        structlog.get_logger("late").exception("failed")
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second, third = map(json.loads, captured.err.splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "bound", "pod": "default/a", "node": "n", "logger": "early", "level": "info"}
    assert (second["event"], second["logger"], second["level"]) == ("slow thing", "library", "warning")
    assert "ValueError: bad day" in third["exception"]


@pytest.mark.parametrize("log_format", ["console", "auto", "json"])
def test_formats(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """auto on what is not a terminal is JSON."""
    logs.configure("info", log_format)
    structlog.get_logger("x").info("hello", pod="a")
    line = capsys.readouterr().err
    assert "hello" in line
    assert line.startswith("{") == (log_format != "console")


def test_the_level_holds_for_all_loggers_and_can_change(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    log = structlog.get_logger("x")
    log.info("not this")
    logging.getLogger("library").info("nor this")
    assert capsys.readouterr().err == ""
    logs.set_level("debug")
    assert logs.get_level() == "debug"
    log.debug("this")
    assert json.loads(capsys.readouterr().err)["event"] == "this"
    with pytest.raises(ValueError, match="log level 'trace' is not one of debug, info, warning, error"):
        logs.set_level("trace")
    assert logs.get_level() == "debug"


def test_configuring_twice_does_not_write_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logs.configure("info", "json")
    structlog.get_logger("x").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
