"""Puts the extender's parts together, starts them, and stops them in order.

There is no leader: kube-scheduler has one, and asks whoever its Service names. Each replica follows the
cluster by itself; what two of them know apart is the binds that one has sent and no watch has shown yet.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import structlog

from scheduler.api import Namespace, Node, Pod
from scheduler.config import Configuration, ConfigurationError
from scheduler.core.engine import Engine
from scheduler.core.gangs.ref import GROUPS
from scheduler.core.queue import SchedulingQueue
from scheduler.extender.answers import Answers
from scheduler.extender.binds import Binds
from scheduler.extender.following import (
    NamespaceFollower,
    NodeFollower,
    ObjectFollower,
    PodFollower,
    Progress,
)
from scheduler.extender.metrics import Metrics
from scheduler.extender.plans import PLANNING_S, GangPlans
from scheduler.extender.rights import EXTENDER, MANIFEST
from scheduler.extender.server import ExtenderServer
from scheduler.extender.settings import ExtenderSettings
from scheduler.extender.verbs import Verbs
from scheduler.kube.client import KubeClient
from scheduler.kube.decode import T
from scheduler.kube.errors import ApiError, ErrorKind
from scheduler.kube.permissions import DELEGATION, require, to_watch, why_not
from scheduler.kube.resources import RESOURCES, UNFINISHED, Resource
from scheduler.kube.selfcheck import compare_with_api
from scheduler.kube.served import until_served
from scheduler.kube.watch import Handler, Reflector
from scheduler.kube.writer import Writer, WriterLimits
from scheduler.observe.tls import Certificate
from scheduler.plugins.profiles import build_profile
from scheduler.serving import listen, serve_operators

log = structlog.get_logger(__name__)

DRAIN_TIMEOUT_S = 10.0
PLAN_LIVES_TIMEOUTS = 2.0
"""A gang's plan waits for its next member as long as this many requests may take."""
PLANNING_SHARE = 0.3
"""Of kube-scheduler's timeout, for a gang to be planned, after the watch has caught up."""


class Extender:
    """One extender process. `await Extender(configuration, settings).run()` returns after SIGTERM or SIGINT.

    Raises KubeError when the cluster is unusable at start, ConfigurationError or PluginError when the
    configuration is of no use.
    """

    def __init__(self, configuration: Configuration, settings: ExtenderSettings) -> None:
        self._configuration, self._settings = configuration, settings
        profiles = [build_profile(profile) for profile in configuration.profiles]
        watched = frozenset(kind for profile in profiles for kind in profile.watches)
        self._watched = sorted(watched, key=lambda kind: kind.__name__)
        self.engine = Engine(profiles, clock=time.monotonic, queue=SchedulingQueue(time.monotonic))
        self.metrics = Metrics()
        self._progress = Progress()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start, serve, and stop in order; see the class for what it raises."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        async with AsyncExitStack() as stack:
            await self._start(stack)
            await self._serve()
        log.info("stopped")

    async def _start(self, stack: AsyncExitStack) -> None:
        configuration, connection = self._configuration, self._configuration.client_connection
        client = self._client = await stack.enter_async_context(
            KubeClient.from_config(
                Path(connection.kubeconfig) if connection.kubeconfig else None,
                user_agent="wholepod-extender",
                on_request=self.metrics.on_request,
            )
        )
        delegation = DELEGATION if configuration.delegates_authorization else ()
        watching = [permission for kind in self._watched for permission in to_watch(kind)]
        await require(client, [*EXTENDER, *watching, *delegation], MANIFEST)
        self._binds = Binds(
            self.engine,
            read_pod=self._read_pod,
            on_outcome=lambda kind: self.metrics.binds.labels(kind).inc(),
            why_not=self._why_not,
        )
        plans = GangPlans(
            self.engine,
            time.monotonic,
            lives_s=self._settings.http_timeout_s * PLAN_LIVES_TIMEOUTS,
            planning_s=min(PLANNING_S, self._settings.http_timeout_s * PLANNING_SHARE),
        )
        self.metrics.watch(under_way=lambda: len(self._binds), plans=lambda: plans.outcomes)
        self._writer = Writer(
            client,
            on_bound=self._binds.on_bound,
            limits=WriterLimits(qps=connection.qps, burst=connection.burst),
        )
        verbs = Verbs(
            self.engine, unknown_nodes=self._settings.unknown_nodes, held=self._binds.held, plans=plans
        )
        self._binds.connect(self._writer, verbs, plans)
        self._reflectors: list[Reflector[Any]] = [
            self._reflector(
                Resource("pods"), Pod, PodFollower(self.engine, self._progress, self._unreadable), UNFINISHED
            ),
            self._reflector(Resource("nodes"), Node, NodeFollower(self.engine, self._unreadable)),
            self._reflector(Resource("namespaces"), Namespace, NamespaceFollower(self.engine)),
            *(
                self._reflector(RESOURCES[kind], kind, ObjectFollower(self.engine, kind))
                for kind in self._watched
            ),
        ]
        self._groups = await self._group_reflectors()
        answers = Answers(
            verbs,
            self._binds,
            self._progress,
            self.metrics,
            http_timeout_s=self._settings.http_timeout_s,
            why_not=self._why_not,
        )
        extender_port = await self._start_extender(stack, answers)
        port = await serve_operators(
            stack,
            client,
            configuration,
            registry=self.metrics.registry,
            live={"ping": lambda: None},
            ready={
                "shutdown": lambda: "the process is stopping" if self._stopping.is_set() else None,
                "synced": self._why_not,
            },
            routes={"/debug/cache-check": self._cache_check},
        )
        names = [profile.scheduler_name for profile in configuration.profiles]
        log.info(
            "started", server=client.server, scheduler_names=names, port=port, extender_port=extender_port
        )

    def _reflector(
        self, resource: Resource, kind: type[T], handler: Handler[T], field_selector: str = ""
    ) -> Reflector[T]:
        self.metrics.unreadable.labels(resource.name)
        return Reflector(
            self._client,
            resource=resource.name,
            path=resource.path,
            item_type=kind,
            handler=handler,
            field_selector=field_selector,
            on_undecodable=lambda raw, error: self._unreadable(resource.name, "", error),
        )

    async def _group_reflectors(self) -> dict[Resource, Reflector[Any]]:
        """Nothing else waits for them: gangs that they describe wait by themselves."""
        found = {}
        for kind, source in GROUPS.items():
            why = await why_not(self._client, to_watch(kind), MANIFEST)
            if why:
                log.warning("gangs are not served", source=source.value, why=why)
                self.engine.gangs.book.refuse(source, f"gangs are not served: {why}")
            else:
                resource = RESOURCES[kind]
                found[resource] = self._reflector(resource, kind, ObjectFollower(self.engine, kind))
        return found

    async def _watch_when_served(self, resource: Resource, groups: Reflector[Any]) -> None:
        await until_served(self._client, resource)
        await groups.run()

    def _unreadable(self, resource: str, name: str, error: Exception) -> None:
        self.metrics.unreadable.labels(resource).inc()
        log.error("skipped an object that can't be read", resource=resource, name=name, error=str(error))

    async def _start_extender(self, stack: AsyncExitStack, answers: Answers) -> int:
        settings, certificate = self._settings, None
        if settings.cert_file:
            try:
                certificate = Certificate(
                    Path(settings.cert_file),
                    Path(settings.key_file),
                    client_ca_file=Path(settings.client_ca_file) if settings.client_ca_file else None,
                )
            except OSError as error:
                raise ConfigurationError(
                    f"extender: cannot use --tls-cert-file {settings.cert_file} with --tls-key-file "
                    f"{settings.key_file} and --tls-client-ca-file {settings.client_ca_file}: {error}"
                ) from error
        server = ExtenderServer(
            answers.by_verb(),
            self.metrics,
            max_request_bytes=settings.max_request_bytes,
            read_timeout_s=settings.http_timeout_s,
            openapi=files("scheduler.extender").joinpath("openapi.json").read_bytes(),
        )
        return await listen(stack, server, settings.address, certificate, option="--address")

    async def _serve(self) -> None:
        """Runs all tasks until a signal comes or one of them fails."""
        tasks = [
            *(asyncio.create_task(r.run(), name=f"watch {r.resource}") for r in self._reflectors),
            asyncio.create_task(self._writer.run(), name="write"),
            *(
                asyncio.create_task(self._watch_when_served(resource, groups), name="watch groups")
                for resource, groups in self._groups.items()
            ),
        ]
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # but for `stopping`, each of them ends only by an exception
            log.info("stopping", binds_under_way=len(self._binds))
            left = await self._writer.drain(DRAIN_TIMEOUT_S)
            if left.undecided:
                log.warning("binds left without an outcome", binds=len(left.undecided))
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)

    def _why_not(self) -> str | None:
        if self._stopping.is_set():
            return "the extender is stopping"
        late = [reflector.resource for reflector in self._reflectors if not reflector.synced]
        return f"the extender's watch of {', '.join(late)} is not in sync" if late else None

    async def _read_pod(self, namespace: str, name: str) -> Pod | None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        try:
            answer = await self._client.request("GET", path, timeout_s=self._settings.http_timeout_s)
        except ApiError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return None
            raise
        return msgspec.json.decode(answer.body, type=Pod)

    async def _cache_check(self) -> Any:
        return await compare_with_api(self._client, self.engine, pod_selector=UNFINISHED)
