"""Puts the controller's parts together, starts them, and stops them in order.

There is no leader: all writes hold for one version of an object, or are of objects with a name that follows
from what they are for, so that two controllers do what one does. Two of them answer the webhook.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from scheduler.config import Configuration, ConfigurationError, split_address
from scheduler.controller import crds
from scheduler.controller.admission import Judge
from scheduler.controller.creating import Creating, WorkloadKey
from scheduler.controller.following import Following
from scheduler.controller.groups import Groups
from scheduler.controller.kinds import keep_up
from scheduler.controller.members import Members
from scheduler.controller.metrics import Metrics
from scheduler.controller.port_events import PortEvents
from scheduler.controller.reports import Reports
from scheduler.controller.rights import CONTROLLER, CRD_MANIFEST, INSTALL_CRDS, MANIFEST
from scheduler.controller.settings import ControllerSettings
from scheduler.controller.shapes import GroupObject, Key, MemberPod, PortedPod
from scheduler.controller.webhook import Webhook, WebhookServer
from scheduler.controller.workloads import Workload
from scheduler.controller.workqueue import WorkQueue
from scheduler.core.gangs.ref import POD_GROUP_LABEL
from scheduler.kube.client import KubeClient
from scheduler.kube.decode import Garbled
from scheduler.kube.errors import KubeError
from scheduler.kube.permissions import DELEGATION, require
from scheduler.kube.resources import Resource
from scheduler.kube.watch import Reflector
from scheduler.observe.tls import Certificate, keep_fresh
from scheduler.plugins.profiles import build_profile
from scheduler.serving import serve_operators

log = structlog.get_logger(__name__)

RESYNC_S = 300.0


class Controller:
    """One controller process. `await Controller(configuration, settings).run()` returns after SIGTERM or
    SIGINT.

    Raises KubeError when the cluster is unusable at start, ConfigurationError or PluginError when the
    configuration is of no use.
    """

    def __init__(self, configuration: Configuration, settings: ControllerSettings) -> None:
        self._configuration, self._settings = configuration, settings
        profiles = [build_profile(profile) for profile in configuration.profiles]
        self._policies = {profile.scheduler_name: profile.gangs for profile in profiles}
        self.metrics = Metrics()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start, serve, and stop in order; see the class for what it raises."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        async with AsyncExitStack() as stack:
            client = await self._start(stack)
            await self._serve(client)
            log.info("stopping")
        log.info("stopped")

    async def _start(self, stack: AsyncExitStack) -> KubeClient:
        connection = self._configuration.client_connection
        kubeconfig = Path(connection.kubeconfig) if connection.kubeconfig else None
        client = await stack.enter_async_context(
            KubeClient.from_config(
                kubeconfig, user_agent="wholepod-controller", on_request=self.metrics.on_request
            )
        )
        await self._check_rights(client)
        self._make_parts(client, kubeconfig)
        webhook_port = await self._start_webhook(stack)
        port = await self._start_server(stack, client)
        self._following.start()
        stack.push_async_callback(self._following.stop)
        log.info(
            "started",
            server=client.server,
            scheduler_names=list(self._policies),
            port=port,
            webhook_port=webhook_port,
        )
        return client

    async def _check_rights(self, client: KubeClient) -> None:
        if self._settings.install_crds:
            await require(client, INSTALL_CRDS, CRD_MANIFEST)
            await crds.install(client)
        delegation = DELEGATION if self._configuration.delegates_authorization else ()
        await require(client, [*CONTROLLER, *delegation], MANIFEST)

    def _make_parts(self, client: KubeClient, kubeconfig: Path | None) -> None:
        reports = Reports(client)
        members = Members(lambda key: self._statuses.add(key), on_synced=self._look_at_all)
        self._member_pods: Reflector[Any] = Reflector(
            client,
            resource="members",
            path=Resource("pods").path,
            item_type=MemberPod,
            handler=members,
            label_selector=POD_GROUP_LABEL,
        )
        self._groups = Groups(
            client,
            members,
            reports,
            may_write=lambda: self._member_pods.synced,
            ours=self._policies.__contains__,
            now=lambda: datetime.datetime.now(datetime.UTC),
            on_written=lambda outcome: self.metrics.status_writes.labels(outcome).inc(),
            on_gone=self._look_at_owners,
        )
        self._creating = Creating(
            client, self._groups, reports, on_created=lambda kind: self.metrics.created.labels(kind).inc()
        )
        ports = PortEvents(reports, lambda key: self._ports.add(key, after_s=0.0))
        self._pending_pods: list[Reflector[Any]] = [
            Reflector(
                client,
                resource=f"waiting pods of {name}",
                path=Resource("pods").path,
                item_type=PortedPod,
                handler=ports,
                field_selector=f"spec.schedulerName={name},status.phase=Pending",
            )
            for name in self._policies
        ]
        self._statuses: WorkQueue[Key] = self._queue("status", self._groups.reconcile)
        self._owners: WorkQueue[WorkloadKey] = self._queue("create", self._creating.reconcile)
        self._ports: WorkQueue[Key] = self._queue("ports", ports.reconcile)
        self._following = Following(kubeconfig, self)
        self.metrics.watch(
            phases=self._groups.phases,
            queues={"status": self._statuses, "create": self._owners, "ports": self._ports},
            restarts=lambda: self._following.restarts,
        )

    def _queue(self, name: str, reconcile: Any) -> WorkQueue[Any]:
        return WorkQueue(
            reconcile,
            name=name,
            rng=random.Random(),
            on_failure=lambda error: self.metrics.failures.labels(name).inc(),
        )

    async def _serve(self, client: KubeClient) -> None:
        """Runs all tasks until a signal comes or one of them fails."""
        running = {
            "watch members": self._member_pods.run(),
            **{f"watch {each.resource}": each.run() for each in self._pending_pods},
            "status": self._statuses.run(),
            "create": self._owners.run(),
            "ports": self._ports.run(),
            "resync": self._resync(),
            "keep up": keep_up(
                client, followed=self._following.followed, start_anew=self._following.start_anew
            ),
        }
        tasks = [asyncio.create_task(each, name=name) for name, each in running.items()]
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # but for `stopping`, each of them ends only by an exception
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_S)
            try:
                await self._groups.resync()
            except (KubeError, Garbled) as error:
                log.info("PodGroups could not be listed to compare", why=str(error))

    # What `Following` tells.

    def group_seen(self, group: GroupObject) -> None:
        self._groups.seen(group)
        self._statuses.add(group.key)
        self._look_at_owners(group.key)

    def group_gone(self, key: Key) -> None:
        self._groups.gone(key)
        self._look_at_owners(key)

    def workload_seen(self, owner: Workload) -> None:
        key = self._creating.seen(owner)
        if key is not None:
            self._owners.add(key)

    def workload_gone(self, kind: str, key: Key) -> None:
        self._creating.gone(WorkloadKey(kind, key))

    def _look_at_owners(self, group: Key) -> None:
        for owner in self._creating.asking_for(group):
            self._owners.add(owner)

    def _look_at_all(self) -> None:
        for key in self._groups.names():
            self._statuses.add(key)

    # Servers.

    async def _start_webhook(self, stack: AsyncExitStack) -> int | None:
        settings = self._settings
        if not settings.webhook_address:
            return None
        try:
            certificate = Certificate(Path(settings.webhook_cert_file), Path(settings.webhook_key_file))
        except OSError as error:
            raise ConfigurationError(
                f"cannot use --webhook-cert-file {settings.webhook_cert_file} with --webhook-key-file "
                f"{settings.webhook_key_file}: {error}"
            ) from error
        webhook = Webhook(
            Judge(self._policies),
            on_review=lambda kind, answer: self.metrics.reviews.labels(kind, answer).inc(),
        )
        server = WebhookServer(webhook, certificate)
        try:
            port = await server.start(*split_address(settings.webhook_address))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {settings.webhook_address}: {error.strerror or error}; "
                "choose another --webhook-address (port 0 picks a free one)"
            ) from error
        stack.push_async_callback(server.stop)
        renewal = asyncio.create_task(keep_fresh(certificate), name="renew the webhook's certificate")
        stack.callback(renewal.cancel)
        return port

    async def _start_server(self, stack: AsyncExitStack, client: KubeClient) -> int:
        return await serve_operators(
            stack,
            client,
            self._configuration,
            registry=self.metrics.registry,
            live={
                "ping": lambda: None,
                "following": lambda: None if self._following.alive else "nothing follows PodGroups any more",
            },
            ready={
                "shutdown": lambda: "the process is stopping" if self._stopping.is_set() else None,
                "members-synced": _synced(self._member_pods),
            },
            routes={},
        )


def _synced(reflector: Reflector[Any]) -> Callable[[], str | None]:
    return lambda: None if reflector.synced else f"the watch of {reflector.resource} is not in sync"
