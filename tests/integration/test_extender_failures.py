"""What becomes of pods when the extender is not there, knows less, or has a pod to make room for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.integration.extending import Extender, Recorder, asking, priority_class, start_kube_scheduler
from tests.integration.harness import eventually
from tests.integration.workbench import Workbench

NAME = "default-scheduler"


@pytest.fixture
def kube_scheduler(bench: Workbench) -> Iterator[Workbench]:
    """Ends the kube-scheduler that the test starts."""
    yield bench
    bench.plane.programs["kube-scheduler"].stop()


@pytest.mark.parametrize("cached", [True, False], ids=["names", "nodes"])
def test_preemption_goes_by_what_the_extender_says(
    kube_scheduler: Workbench, log: Path, cached: bool
) -> None:
    bench = kube_scheduler
    for name in ("a", "b"):
        bench.node(name, memory="4Gi")
    for value in (5, 1000):
        bench.api.create(priority_class(value))
    with (
        Extender(kubeconfig=bench.plane.kubeconfig, log=log) as extender,
        Recorder(extender.extender_url) as recorder,
    ):
        start_kube_scheduler(bench.plane, asking(recorder.url, nodeCacheCapable=cached))
        bench.pod("little", "3Gi", scheduler_name=NAME)
        bench.wait_bound("little")
        bench.pod("more", "3Gi", scheduler_name=NAME, priorityClassName="extender-5")
        bench.wait_bound("more")
        bench.pod("urgent", "2Gi", scheduler_name=NAME, priorityClassName="extender-1000")
        bench.wait_pod("little", lambda pod: pod["metadata"].get("deletionTimestamp"), "evicted")
        [node] = [bench.node_of("little")]
        bench.remove("little")
        assert bench.wait_bound("urgent") == [node]
        [exchange, *_] = recorder.of("preempt")
        sent, kept = exchange.asked, exchange.answered["NodeNameToMetaVictims"]
        offered = sent["NodeNameToMetaVictims" if cached else "NodeNameToVictims"]
        assert sorted(offered) == ["a", "b"]
        assert sorted(kept) == ["a", "b"]  # either would do; kube-scheduler takes the least important
        assert [len(victims["Pods"]) for victims in kept.values()] == [1, 1]
        assert bench.node_of("more") != node
        extender.check_cache()
    for value in (5, 1000):
        bench.api.delete(f"/apis/scheduling.k8s.io/v1/priorityclasses/extender-{value}")


def test_without_the_extender_nothing_is_bound_unless_it_is_ignorable(
    kube_scheduler: Workbench, log: Path
) -> None:
    bench = kube_scheduler
    bench.node("node", memory="16Gi")
    with Extender(kubeconfig=bench.plane.kubeconfig, log=log) as extender:
        start_kube_scheduler(bench.plane, asking(extender.extender_url, ignorable=False))
        bench.pod("before", scheduler_name=NAME)
        bench.wait_bound("before")
        extender.kill()
        bench.pod("meanwhile", scheduler_name=NAME)
        bench.wait_pod(
            "meanwhile",
            lambda pod: any(c["reason"] == "SchedulerError" for c in pod["status"].get("conditions", ())),
            "refused for want of an answer",
        )
        assert bench.node_of("meanwhile") == ""
        extender.start()
        bench.wait_bound("meanwhile")  # it is tried again without anybody's doing
        extender.check_cache()


def test_an_ignorable_extender_is_missed_by_nobody(kube_scheduler: Workbench, log: Path) -> None:
    bench = kube_scheduler
    bench.node("node", memory="16Gi")
    with Extender(kubeconfig=bench.plane.kubeconfig, log=log) as extender:
        start_kube_scheduler(bench.plane, asking(extender.extender_url, ignorable=True))
        bench.pod("before", scheduler_name=NAME)
        bench.wait_bound("before")
        extender.kill()
        bench.pod("meanwhile", scheduler_name=NAME)
        bench.wait_bound("meanwhile")
        extender.start()
        bench.pod("after", scheduler_name=NAME)
        bench.wait_bound("after")
        eventually(
            lambda: extender.metric("wholepod_extender_binds_total", outcome="Bound") == 1,
            "what was asked after its return is its own",
        )
        extender.check_cache()


def test_mutual_tls(kube_scheduler: Workbench, log: Path, tmp_path: Path) -> None:
    bench = kube_scheduler
    ca, server = trustme.CA(), tmp_path / "server.pem"
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(server)
    client = ca.issue_cert("kube-scheduler@example.com")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    flags = (
        f"--tls-cert-file={server}",
        f"--tls-key-file={server}",
        f"--tls-client-ca-file={tmp_path / 'ca.pem'}",
    )
    bench.node("node")
    with Extender(*flags, kubeconfig=bench.plane.kubeconfig, log=log, scheme="https") as extender:
        tls = {"caFile": str(tmp_path / "ca.pem")}
        stranger = asking(extender.extender_url, enableHTTPS=True, tlsConfig=tls)
        start_kube_scheduler(bench.plane, stranger)
        bench.pod("of-a-stranger", scheduler_name=NAME)
        bench.wait_event("of-a-stranger", "FailedScheduling")
        bench.plane.programs["kube-scheduler"].stop()
        known = {**tls, "certFile": str(tmp_path / "client.pem"), "keyFile": str(tmp_path / "client.pem")}
        start_kube_scheduler(bench.plane, asking(extender.extender_url, enableHTTPS=True, tlsConfig=known))
        bench.wait_bound("of-a-stranger")
        eventually(
            lambda: extender.metric("wholepod_extender_binds_total", outcome="Bound") == 1, "it was our bind"
        )
