"""What is said when deciding fails."""

import json

import pytest
from structlog.testing import capture_logs

from scheduler.extender.answers import Answers
from scheduler.extender.binds import Binds
from scheduler.extender.following import Progress
from scheduler.extender.metrics import Metrics
from scheduler.extender.server import REFUSED, NoAnswer
from scheduler.extender.verbs import Verbs
from tests.builders import make_engine
from tests.unit.extender.replay import encoded
from tests.unit.extender.test_verbs import pod


async def test_a_plugins_failure_is_logged_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Verbs, args: object) -> None:
        raise ZeroDivisionError("of a plugin")

    monkeypatch.setattr(Verbs, "filter", broken)
    monkeypatch.setattr(Verbs, "prioritize", broken)
    engine = make_engine()
    binds = Binds(engine, read_pod=lambda namespace, name: pytest.fail("nothing is read"))
    answers = Answers(
        Verbs(engine), binds, Progress(), Metrics(), http_timeout_s=1.0, why_not=lambda: None
    ).by_verb()
    body = encoded({"Pod": pod(), "NodeNames": ["a"]})
    with capture_logs() as logs:
        outcome, answer = await answers["filter"](body)
        with pytest.raises(NoAnswer, match="of a plugin"):
            await answers["prioritize"](body)
    assert outcome == REFUSED
    assert "ZeroDivisionError: of a plugin" in json.loads(answer)["Error"]
    assert [(entry["event"], entry["pod"], entry["exc_info"]) for entry in logs] == [
        ("deciding failed", "default/pod", True)
    ] * 2
