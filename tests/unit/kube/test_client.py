import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path

import certifi
import pytest

from scheduler.kube import credentials
from scheduler.kube.client import KubeClient, _watchful_socket
from scheduler.kube.credentials import load_access
from scheduler.kube.errors import ApiError, ConfigError, ErrorKind, OutcomeUnknown, Unreachable
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import write_kubeconfig

POD = "/api/v1/namespaces/default/pods/a"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a socket option of Linux")
def test_the_network_may_not_keep_what_was_sent_for_longer_than_it_is_told() -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 1))
    with _watchful_socket(address, unacknowledged_s=5.0) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


async def test_answers_come_back_as_bytes_with_status_and_headers(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a")
    answer = await client.request("GET", POD)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert b'"name": "a"' in answer.body
    assert api.authorizations == ["Bearer secret"]


async def test_query_values_are_escaped(api: ApiServer, client: KubeClient) -> None:
    await client.request("GET", "/api/v1/pods", query={"fieldSelector": "a!=b,c=d&e"})
    assert api.queries == [{"fieldSelector": "a!=b,c=d&e"}]


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", ErrorKind.INVALID),
        (401, "Unauthorized", ErrorKind.UNAUTHORIZED),
        (403, "Forbidden", ErrorKind.FORBIDDEN),
        (404, "NotFound", ErrorKind.NOT_FOUND),
        (409, "Conflict", ErrorKind.CONFLICT),
        (409, "AlreadyExists", ErrorKind.ALREADY_EXISTS),
        (410, "Expired", ErrorKind.GONE),
        (422, "Invalid", ErrorKind.INVALID),
        (429, "TooManyRequests", ErrorKind.TOO_MANY_REQUESTS),
        (500, "InternalError", ErrorKind.SERVER_ERROR),
        (503, "ServiceUnavailable", ErrorKind.SERVER_ERROR),
        (504, "Timeout", ErrorKind.SERVER_ERROR),
    ],
)
async def test_answers_are_classified(
    api: ApiServer, client: KubeClient, status: int, reason: str, kind: ErrorKind
) -> None:
    api.fault("GET", status=status, reason=reason, message="because", headers={"Retry-After": "7"})
    with pytest.raises(ApiError) as caught:
        await client.request("GET", POD)
    error = caught.value
    assert (error.kind, error.status, error.reason, error.message) == (kind, status, reason, "because")
    assert error.retry_after_s == 7.0
    assert "\n" not in str(error)


async def test_a_redirect_is_not_followed(api: ApiServer, client: KubeClient) -> None:
    api.fault("GET", status=302, headers={"Location": "http://127.0.0.1:1/"})
    with pytest.raises(ApiError, match="302"):
        await client.request("GET", POD)


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/api/v1/pods", "not allowed to list pods: grant it"),
        ("GET", POD, "not allowed to get pods: grant it"),
        ("POST", POD + "/binding", "not allowed to create pods/binding: grant it"),
        ("PATCH", POD + "/status", "not allowed to patch pods/status: grant it"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/x/leases/y", "not allowed to update leases"),
        ("GET", "/api/v1/namespaces/x", "not allowed to get namespaces"),
    ],
)
async def test_forbidden_names_what_a_role_must_grant(
    api: ApiServer, client: KubeClient, method: str, path: str, text: str
) -> None:
    api.fault(method, status=403, reason="Forbidden", message="User x cannot")
    with pytest.raises(ApiError) as caught:
        await client.request(method, path, body=b"{}")
    assert str(caught.value).startswith(text)
    assert "kubectl auth can-i" in str(caught.value)
    assert str(caught.value).endswith("User x cannot")


async def test_forbidden_watch_is_called_a_watch(api: ApiServer, client: KubeClient) -> None:
    api.fault("GET", status=403, reason="Forbidden")
    with pytest.raises(ApiError, match="not allowed to watch pods"):
        async with client.stream(
            "/api/v1/pods", query={"watch": "true"}, total_timeout_s=5, idle_timeout_s=5
        ):
            pass


async def test_a_proxys_error_page_is_quoted(api: ApiServer, client: KubeClient) -> None:
    with pytest.raises(ApiError, match=r"answered 404: .*could not find"):
        await client.request("GET", "/healthz/nothing")


async def test_refused_connection_was_certainly_not_executed(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and it refuses
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with KubeClient.from_config(write_kubeconfig(tmp_path / "k", server)) as client:
            with pytest.raises(Unreachable) as caught:
                await client.request("GET", POD)
    assert str(caught.value) == (
        f"cannot reach the API server at {server}: connection refused; "
        "is the server up and the kubeconfig's `server` right?"
    )


async def test_dropped_connection_leaves_the_outcome_open(api: ApiServer, client: KubeClient) -> None:
    api.fault("POST", drop=True)
    with pytest.raises(OutcomeUnknown, match=r"connection to the API server at .* lost"):
        await client.request("POST", POD + "/binding", body=b"{}")
    assert len(api.requests) == 1  # a POST is never repeated behind our back


async def test_no_answer_in_time_leaves_the_outcome_open(api: ApiServer, client: KubeClient) -> None:
    api.fault("GET", delay_s=5)
    with pytest.raises(OutcomeUnknown, match="did not answer in time"):
        await client.request("GET", POD, timeout_s=0.05)


async def test_each_request_is_measured_once(api: ApiServer, kubeconfig: Path) -> None:
    seen: list[tuple[str, str]] = []
    api.add_pod("a")
    api.fault("PATCH", drop=True)
    async with KubeClient.from_config(
        kubeconfig, on_request=lambda verb, code, seconds: seen.append((verb, code))
    ) as client:
        await client.request("GET", POD)
        with pytest.raises(ApiError):
            await client.request("PUT", POD)
        with pytest.raises(OutcomeUnknown):
            await client.request("PATCH", POD)
    assert seen == [("GET", "200"), ("PUT", "404"), ("PATCH", "<error>")]


async def test_rotated_token_file_is_taken_up(api: ApiServer, tmp_path: Path) -> None:
    now = 1000.0
    token = tmp_path / "token"
    token.write_text("one")
    api.add_pod("a")
    access = await load_access(write_kubeconfig(tmp_path / "k", api.url, tokenFile=str(token)))
    client = KubeClient(access, clock=lambda: now)
    await client.request("GET", POD)
    token.write_text("two\n")
    await client.request("GET", POD)
    now += 61
    await client.request("GET", POD)
    token.unlink()
    now += 61
    await client.request("GET", POD)  # a file that is away for a moment does not cost us the token
    await client.close()
    assert api.authorizations == ["Bearer one", "Bearer one", "Bearer two", "Bearer two"]


async def test_rejected_token_is_looked_up_soon(api: ApiServer, tmp_path: Path) -> None:
    now = 1000.0
    token = tmp_path / "token"
    token.write_text("one")
    api.add_pod("a")
    access = await load_access(write_kubeconfig(tmp_path / "k", api.url, tokenFile=str(token)))
    client = KubeClient(access, clock=lambda: now)
    api.fault("GET", status=401, reason="Unauthorized", message="Unauthorized")
    with pytest.raises(ApiError, match="token or certificate rejected"):
        await client.request("GET", POD)
    token.write_text("two")
    now += 1
    await client.request("GET", POD)
    await client.close()
    assert api.authorizations == ["Bearer one", "Bearer two"]


async def test_in_cluster_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.aio.config import incluster_config

    token = tmp_path / "token"
    token.write_text("projected\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certifi.where())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = await load_access(None, environ={"KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert access.server == "https://[fd00::1]:443"
    assert access.authorization.lower() == "bearer projected"
    assert isinstance(access.ssl_context, ssl.SSLContext)
    assert access.ssl_context.verify_mode is ssl.CERT_REQUIRED
    await access.refresh()
    assert access.authorization.lower() == "bearer projected"


async def test_a_plugin_that_hangs_stalls_nobody(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await load_access(write_kubeconfig(tmp_path / "k", api.url, token="old"))
    monkeypatch.setattr(access, "_refresh", asyncio.Event().wait)
    monkeypatch.setattr("scheduler.kube.credentials.REFRESH_TIMEOUT_S", 0.01)
    await access.refresh()
    assert access.authorization == "Bearer old"


async def test_in_cluster_service_account_without_a_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(ConfigError, match=r"in-cluster credentials cannot be used: .*automount"):
        await load_access(None, environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})


async def test_exec_plugin_gives_the_token(api: ApiServer, tmp_path: Path) -> None:
    api.add_pod("a")
    config = write_kubeconfig(tmp_path / "k", api.url, exec=_plugin('{"token": "from-plugin"}'))
    async with KubeClient.from_config(config) as client:
        await client.request("GET", POD)
    assert api.authorizations == ["Bearer from-plugin"]


async def test_failing_exec_plugin_is_named(api: ApiServer, tmp_path: Path) -> None:
    broken = _plugin("{}") | {"args": ["-c", "import sys; sys.exit('please log in')"]}
    config = write_kubeconfig(tmp_path / "k", api.url, exec=broken)
    with pytest.raises(ConfigError, match=r"exec plugin gave no credentials: .*please log in"):
        await load_access(config)


def _plugin(status: str) -> dict[str, object]:
    version = "client.authentication.k8s.io/v1"
    credential = f'{{"apiVersion": "{version}", "kind": "ExecCredential", "status": {status}}}'
    return {"apiVersion": version, "command": sys.executable, "args": ["-c", f"print('''{credential}''')"]}


async def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no kubeconfig at .*nowhere \(--kubeconfig\)"):
        await load_access(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no kubeconfig at /no/where \(\$KUBECONFIG\)"):
        await load_access(None, environ={"KUBECONFIG": "/no/where"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "expected"),
        ("", "does its current-context name"),
        ("clusters: []\ncontexts: []\ncurrent-context: x", "Expected object with name x in .*contexts"),
        ("clusters: []\ncontexts: []", "current-context"),
    ],
)
async def test_broken_kubeconfig_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"kubeconfig .*broken cannot be used: .*{why}") as caught:
        await load_access(path)
    assert "\n" not in str(caught.value)


async def test_kubeconfig_variable_may_list_files(api: ApiServer, tmp_path: Path) -> None:
    config = write_kubeconfig(tmp_path / "k", api.url, token="t")
    access = await load_access(None, environ={"KUBECONFIG": f"/no/where{os.pathsep}{config}"})
    assert (access.server, access.authorization) == (api.url, "Bearer t")


async def test_loopback_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    assert credentials._proxy_from_environment("https://127.0.0.1:6443") is None
    assert credentials._proxy_from_environment("https://localhost:6443") is None
    assert credentials._proxy_from_environment("https://api.internal.example") is None
    assert credentials._proxy_from_environment("https://api.example:6443") == "http://proxy:3128"


async def test_requests_beyond_the_connections_wait(api: ApiServer, kubeconfig: Path) -> None:
    api.add_pod("a")
    async with KubeClient.from_config(kubeconfig, connections=2) as client:
        answers = await asyncio.gather(*(client.request("GET", POD) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
