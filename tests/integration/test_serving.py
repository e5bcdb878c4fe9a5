"""Metrics for whoever may read them: over TLS, and as the real API server's RBAC says."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import trustme

from tests.integration.harness import WHOLEPOD, Scheduler, eventually
from tests.integration.workbench import Workbench


def test_the_api_server_says_who_may_ask(bench: Workbench, log: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: wholepod.io/v1alpha1\nkind: SchedulerConfiguration\nauthorization: delegated\n"
        f"tls: {{certFile: {tmp_path}/tls.crt, keyFile: {tmp_path}/tls.key}}\n"
    )
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    tokens = {name: user.token for name, user in bench.plane.users.items()} | {"nobody": "made-up"}
    with Scheduler(
        f"--config={config}",
        "--leader-elect=false",
        kubeconfig=bench.plane.kubeconfig,
        log=log,
        tls=trusting,
    ) as scheduler:

        def get(path: str, user: str) -> tuple[int, str]:
            return scheduler.request(path, token=tokens[user])

        assert "scheduler_schedule_attempts" in get("/metrics", "admin")[1]
        assert scheduler.status("/metrics") == 401
        assert get("/metrics", "nobody") == (401, "the API server does not know this token\n")
        assert get("/metrics", "stranger") == (403, "stranger may not get /metrics\n")
        assert get("/configz", "stranger")[0] == 403
        bench.plane.kubectl("create", "clusterrole", "reads", "--verb=get", "--non-resource-url=/metrics")
        bench.plane.kubectl("create", "clusterrolebinding", "reads", "--clusterrole=reads", "--user=stranger")
        eventually(lambda: get("/metrics", "stranger")[0] == 200, "who was refused is asked for again")
        assert get("/configz", "stranger")[0] == 403

        def gangs(user: str) -> subprocess.CompletedProcess[str]:
            (tmp_path / "token").write_text(tokens[user])
            authority.cert_pem.write_to_path(tmp_path / "ca.crt")
            where = [f"--url={scheduler.url}", f"--ca-file={tmp_path}/ca.crt"]
            command = [str(WHOLEPOD), "gangs", *where, f"--token-file={tmp_path}/token"]
            return subprocess.run(command, capture_output=True, text=True)

        assert gangs("admin").stdout == "No gangs.\n"
        refused = gangs("stranger")
        assert refused.returncode == 3
        assert "refuses (403): stranger may not get /debug/gangs; see --token-file" in refused.stderr
