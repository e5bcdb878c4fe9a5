"""A whole extender under tens of thousands of malformed requests: never a 5xx, never a crash, no leak.

`make test` sends a tenth of what `make fuzz` does.
"""

import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS

from tests.cluster import ControlPlane, node_manifest
from tests.fuzz.malformed import damaged
from tests.integration.extending import Extender
from tests.unit.extender.replay import encoded, recorded

REQUESTS = int(os.environ.get("WHOLEPOD_FUZZ_REQUESTS", "4500"))
"""Damaged ones."""
OF_THE_DESCRIPTION = REQUESTS // 9
"""Further ones, made from the OpenAPI description: a tenth of all."""
IN_A_ROW = 50
MEBIBYTE = 2**20
MAY_GROW_BYTES = 48 * MEBIBYTE
"""From when a tenth was sent: caches of bounded size fill, allocators keep what they have."""
DESCRIPTION = Path(__file__).parents[2] / "scheduler" / "extender" / "openapi.json"
schema = schemathesis.openapi.from_path(DESCRIPTION)


@dataclass
class Target:
    """A running extender; `statuses` counts what was answered."""

    extender: Extender
    statuses: dict[int, int] = field(default_factory=dict)
    early_bytes: int = 0

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(self.extender.extender_url).netloc, timeout=60)

    def post(self, verb: str, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        try:
            self._connection.request("POST", f"/{verb}", body, headers)
            answer = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):  # an idle connection may be closed
            self._connection.close()
            self._connection.request("POST", f"/{verb}", body, headers)
            answer = self._connection.getresponse()
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()

    @property
    def memory_bytes(self) -> int:
        return int(psutil.Process(self.extender.pid).memory_info().rss)

    @property
    def sent(self) -> int:
        return sum(self.statuses.values())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """On a control plane with the nodes that the recorded requests name."""
    log = tmp_path_factory.mktemp("fuzz") / "extender.log"
    with ControlPlane(controller_manager=False) as plane:
        for i, (memory, cpu) in enumerate((("8Gi", "4"), ("4Gi", "4"), ("2Gi", "2"))):
            plane.api.create(node_manifest(f"node-{i}", memory=memory, cpu=cpu))
        with Extender("--http-timeout=1s", kubeconfig=plane.kubeconfig, log=log) as extender:
            target = Target(extender)
            yield target
            target.close()


def test_damaged_requests(target: Target) -> None:
    filters = [each for each in recorded("names")[1] if each.verb == "filter"]
    # A version that the watch has not seen would be waited for.
    request = json.loads(json.dumps(filters[0].request))
    request["Pod"]["metadata"].pop("resourceVersion")
    valid = encoded(request)
    before = target.post("filter", valid)
    assert before[0] == 200
    assert json.loads(before[1])["Error"] == ""

    @settings(
        max_examples=REQUESTS // IN_A_ROW,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(damaged(), min_size=IN_A_ROW, max_size=IN_A_ROW))
    def send(requests: list[tuple[str, bytes]]) -> None:
        for verb, body in requests:
            status, answer = target.post(verb, without_version(body))
            assert 200 <= status < 500, (status, answer, verb, body[:2000])
        if not target.early_bytes and target.sent >= REQUESTS // 10:
            target.early_bytes = target.memory_bytes

    send()
    assert target.sent > REQUESTS * 0.95
    assert target.statuses[400] > target.sent // 20, "most were no requests at all"
    assert target.post("filter", valid) == before, "something of it was kept"
    assert not target.extender.said("a defect of the extender: a request was not answered")
    assert target.memory_bytes - target.early_bytes < MAY_GROW_BYTES
    target.extender.check_cache()
    print(f"{target.sent} requests, by status: {target.statuses}")


def without_version(body: bytes) -> bytes:
    """A version that the watch has not come to is waited for: not what is tried out here."""
    return body.replace(b'"resourceVersion"', b'"resourceVersiom"')


@schema.parametrize()
@settings(
    max_examples=max(OF_THE_DESCRIPTION // 4, 10),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_description_is_true(case: schemathesis.Case[Any], target: Target) -> None:
    """Requests by the description, and against it. What a pod's author may not write is the API server's
    business, so that not everything the description does not allow has to be refused."""
    refusing: Any = CHECKS.get_one("negative_data_rejection")
    case.call_and_validate(base_url=target.extender.extender_url, timeout=60, excluded_checks=[refusing])
