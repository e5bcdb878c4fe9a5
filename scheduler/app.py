"""The composition root: watch → state → queue → cycle → writer, in one event loop.

Everything that decides is in `core` and synchronous; everything that talks is in `kube`. This module
connects the two, and holds the rules of when to decide at all: this process leads, is not stopping,
and all caches are in sync.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from scheduler.api import Namespace, Node, Pod
from scheduler.config import Configuration, ConfigurationError, LeaderElection
from scheduler.core.engine import Engine
from scheduler.core.gangs.ref import GROUPS, Source
from scheduler.core.pod_info import PodInfo
from scheduler.core.queue import SchedulingQueue
from scheduler.kube.client import UNACKNOWLEDGED_S, KubeClient
from scheduler.kube.decode import T, Undecodable
from scheduler.kube.errors import KubeError
from scheduler.kube.gangs.groups import GroupConditions
from scheduler.kube.gangs.pods import PodWrites
from scheduler.kube.gangs.recovery import member_of
from scheduler.kube.journal import Journal
from scheduler.kube.leader import LeaderElector
from scheduler.kube.lease import LeaseConfig
from scheduler.kube.payloads import hostname
from scheduler.kube.permissions import journal_name, missing_for_gangs, require_permissions
from scheduler.kube.reports import PodReports
from scheduler.kube.resources import RESOURCES, UNFINISHED, Resource
from scheduler.kube.selfcheck import compare_with_api
from scheduler.kube.served import until_served
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.kube.watch import Handler, Reflector
from scheduler.kube.writer import Writer, WriterLimits
from scheduler.loop import NamespaceHandler, NodeHandler, ObjectHandler, PodHandler, SchedulingLoop
from scheduler.observe.gang_list import list_gangs
from scheduler.observe.metrics import Metrics
from scheduler.plugins.node_resources import held_by
from scheduler.plugins.profiles import build_profile
from scheduler.racing import REASON
from scheduler.serving import serve_operators
from scheduler.taking_over import TakingOver

log = structlog.get_logger(__name__)

DRAIN_TIMEOUT_S = 10.0
STALLED_AFTER_S = 60.0
MIN_UNACKNOWLEDGED_S = 1.0
"""With less, a single lost segment would end connections."""


class LeadershipLost(KubeError):
    """What this process assumes of the cluster is another leader's business now: start anew."""


class App:
    """One scheduler process. `await App(configuration).run()` returns after SIGTERM or SIGINT.

    Raises KubeError when the cluster is unusable at start or the lease is lost (the process must then
    exit), ConfigurationError or PluginError when the configuration is of no use.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        profiles = self._profiles = [build_profile(profile) for profile in configuration.profiles]
        watched = frozenset(kind for profile in profiles for kind in profile.watches)
        self._watched = sorted(watched, key=lambda kind: kind.__name__)
        self.engine = Engine(
            profiles,
            clock=time.monotonic,
            queue=SchedulingQueue(
                time.monotonic,
                initial_backoff_s=configuration.pod_initial_backoff_seconds,
                max_backoff_s=configuration.pod_max_backoff_seconds,
            ),
        )
        self.engine.races.counts = held_by(profiles)
        self.metrics = Metrics()
        self.metrics.watch_engine(self.engine)
        self.loop = SchedulingLoop(
            self.engine, self.metrics, may_decide=self._may_decide, on_first_turn=_freeze_collected
        )
        self._stopping = asyncio.Event()
        self._leadership_lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._elector: LeaderElector | None = None
        self._leading = asyncio.Event()
        """We hold the lease, or need none."""

    async def run(self) -> None:
        """Start, serve, and stop in order; see the class for what it raises."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        async with AsyncExitStack() as stack:
            await self._start(stack)
            await self._serve()

    async def _start(self, stack: AsyncExitStack) -> None:
        configuration, election = self._configuration, self._configuration.leader_election
        connection = configuration.client_connection
        self._kubeconfig = Path(connection.kubeconfig) if connection.kubeconfig else None
        client = self._client = await stack.enter_async_context(
            KubeClient.from_config(
                self._kubeconfig,
                unacknowledged_s=_unacknowledged_s(election),
                on_request=self.metrics.on_request,
            )
        )
        await require_permissions(
            client,
            watched=self._watched,
            writes_volumes=any(profile.makes_plans for profile in self._profiles),
            leader_elect=election.leader_elect,
            lease_namespace=election.resource_namespace,
            lease_name=election.resource_name,
            delegates_authorization=configuration.delegates_authorization,
        )
        await self._see_what_gangs_can_do()
        self._writer = Writer(
            client,
            on_bound=self.loop.on_bound,
            on_deleted=self.loop.on_deleted,
            on_volumes=lambda uid, outcome: volumes.on_written(uid, outcome),
            leads=self._leads,
            limits=WriterLimits(qps=connection.qps, burst=connection.burst),
            on_drop=lambda work, why: self.metrics.shed.labels(work, why).inc(),
            on_retry=lambda work: self.metrics.retries.labels(work).inc(),
        )
        volumes = VolumeBinder(
            self.engine.state.nodes,
            self._writer,
            on_bound=self.loop.on_volumes_bound,
            on_failed=self.loop.on_volumes_failed,
        )
        self.metrics.waiting_for_volumes.set_function(lambda: len(volumes))
        reports = PodReports(self._writer, clock=time.monotonic)
        self._conditions = GroupConditions(client)
        self.loop.connect(self._writer, reports, volumes, self._conditions)
        self._pods = self._reflector(Resource("pods"), Pod, PodHandler(self.loop), UNFINISHED)
        self._reflectors: list[Reflector[Any]] = [
            self._pods,
            self._reflector(Resource("nodes"), Node, NodeHandler(self.loop)),
            self._reflector(Resource("namespaces"), Namespace, NamespaceHandler(self.loop)),
            *(
                self._reflector(RESOURCES[kind], kind, ObjectHandler(self.loop, kind))
                for kind in self._watched
            ),
        ]
        # Not among those that decisions wait for: gangs without a description wait by themselves.
        self._groups = {
            RESOURCES[kind]: self._reflector(RESOURCES[kind], kind, ObjectHandler(self.loop, kind))
            for kind, source in GROUPS.items()
            if source not in self._unserved
        }
        self._taking_over = TakingOver(
            client,
            self.engine,
            self.loop,
            self._writer,
            pods=self._pods,
            reflectors=self._reflectors,
            pods_wait=not election.leader_elect,
            leads=self._leads,
            scheduler_name=self._profiles[0].scheduler_name,
        )
        port = await self._start_server(stack)
        names = [profile.scheduler_name for profile in configuration.profiles]
        log.info("started", server=client.server, scheduler_names=names, port=port)

    async def _see_what_gangs_can_do(self) -> None:
        """Some of what gangs need may be missing, as in kube-scheduler's own role: single pods go on."""
        election = self._configuration.leader_election
        self._why_no_gangs, unserved = await missing_for_gangs(
            self._client,
            lease_namespace=election.resource_namespace,
            lease_name=election.resource_name,
        )
        if self._why_no_gangs:
            unserved = dict.fromkeys(Source, self._why_no_gangs)
        self._unserved = unserved
        for source, why in unserved.items():
            log.warning("gangs are not served", source=source.value, why=why)
            self.engine.gangs.book.refuse(source, f"gangs are not served: {why}")

    def _reflector(
        self, resource: Resource, kind: type[T], handler: Handler[T], field_selector: str = ""
    ) -> Reflector[T]:
        self.metrics.watch_resource(resource.name)
        return Reflector(
            self._client,
            resource=resource.name,
            path=resource.path,
            item_type=kind,
            handler=handler,
            field_selector=field_selector,
            on_undecodable=lambda raw, error: self.loop.unreadable(resource.name, _name_in(error), error),
        )

    async def _serve(self) -> None:
        """Runs all tasks until a signal comes or one of them fails."""
        tasks = [
            asyncio.create_task(self._watch_pods(), name="watch pods"),
            *(asyncio.create_task(r.run(), name=f"watch {r.resource}") for r in self._reflectors[1:]),
            *(
                asyncio.create_task(self._watch_when_served(resource, groups), name="watch groups")
                for resource, groups in self._groups.items()
            ),
            asyncio.create_task(self.loop.run(), name="decide"),
            asyncio.create_task(self._bind_gangs(), name="bind gangs"),
            asyncio.create_task(self._undo_races(), name="undo races"),
            asyncio.create_task(self._conditions.run(), name="write groups"),
        ]
        writing = asyncio.create_task(self._writer.run(), name="write")
        if self._configuration.leader_election.leader_elect:
            self._elector = self._make_elector()
            self._elector.start()
        else:
            self._leading.set()
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            ends: list[asyncio.Future[Any]] = [stopping, self._leadership_lost, writing, *tasks]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()  # but for `stopping`, each of them ends only by an exception
            log.info(
                "stopping",
                binds_under_way=self.loop.binds_under_way,
                waiting_for_volumes=self.loop.waiting_for_volumes,
            )
            self.loop.stop_waiting_for_volumes()
            left = await self._writer.drain(DRAIN_TIMEOUT_S, when_settled=partial(self._hand_over, tasks))
            log.info("stopped", undecided_binds=len(left.undecided), unsent_events=left.events)
        finally:
            await _cancelled(stopping, writing)
            await self._hand_over(tasks)

    async def _hand_over(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """End all that needs to lead, then let the next leader in, which need not wait for our events.

        While a bind is without outcome, it may be executed after the next leader's list: that one has to
        wait until the lease expires, as if we had died.
        """
        await _cancelled(*tasks)
        if self._elector is not None:
            await self._elector.release(give_up=not self._writer.undecided)

    def _may_decide(self) -> bool:
        return (
            all(reflector.synced for reflector in self._reflectors)
            and not self._stopping.is_set()
            and self._leads()
        )

    def _leads(self) -> bool:
        return self._taking_over.done and (self._elector is None or self._elector.is_leader())

    async def _watch_pods(self) -> None:
        """Who waits for the lease follows them from the start, and lists them anew as leader. Who needs none
        lists them once, after the journal was opened."""
        if not self._configuration.leader_election.leader_elect:
            await self._taking_over.journal_seen.wait()
        await self._pods.run()

    async def _watch_when_served(self, resource: Resource, groups: Reflector[Any]) -> None:
        await until_served(self._client, resource)
        await groups.run()

    async def _bind_gangs(self) -> None:
        await self._leading.wait()
        if self._why_no_gangs:
            await self._taking_over.without_gangs()
            await self._stopping.wait()
            return
        election = self._configuration.leader_election
        journal = Journal(
            self._client,
            namespace=election.resource_namespace,
            name=journal_name(election.resource_name),
            owner=f"{hostname()}_{uuid.uuid4()}" if self._elector is None else self._elector.identity,
            may_write=lambda: self._elector is None or self._elector.is_leader(),
        )
        self.metrics.journal_entries.set_function(lambda: journal.in_flight)
        self.metrics.journal_trouble.set_function(lambda: bool(journal.trouble))
        await self._taking_over.with_gangs(journal)

    async def _undo_races(self) -> None:
        """Deletes pods of ours that share the last room of a node with another scheduler's."""
        await self._leading.wait()
        writes = PodWrites(self._client, rng=random.Random(), clock=time.monotonic)

        async def delete(info: PodInfo, node: str, message: str, is_wanted: Callable[[], bool]) -> None:
            pod = member_of(info.pod, node)
            await writes.delete(pod, reason=REASON, message=message, is_wanted=is_wanted)

        await self.loop.racing.run(delete)

    def _make_elector(self) -> LeaderElector:
        election = self._configuration.leader_election
        try:
            lease = LeaseConfig(
                name=election.resource_name,
                namespace=election.resource_namespace,
                lease_duration_s=math.ceil(election.lease_duration_s),
                renew_deadline_s=election.renew_deadline_s,
                retry_period_s=election.retry_period_s,
            )
        except ValueError as error:
            raise ConfigurationError(f"leaderElection: {error}") from error
        # As client-go does: without it, nobody leading and nobody asked look the same.
        self.metrics.leader.labels(election.resource_name).set(0)
        return LeaderElector(
            lease,
            kubeconfig=self._kubeconfig,
            on_acquired=self._on_started_leading,
            on_lost=self._on_stopped_leading,
            on_request=self.metrics.on_request,
        )

    def _on_started_leading(self) -> None:
        self._leading.set()
        self.metrics.leader.labels(self._configuration.leader_election.resource_name).set(1)
        self.loop.wake()

    def _on_stopped_leading(self, why: str) -> None:
        if not self._leadership_lost.done():
            self._leadership_lost.set_exception(LeadershipLost(f"leadership lost: {why}"))

    async def _start_server(self, stack: AsyncExitStack) -> int:
        return await serve_operators(
            stack,
            self._client,
            self._configuration,
            registry=self.metrics.registry,
            live={"ping": lambda: None, "scheduling-loop": self._check_loop},
            ready={
                "shutdown": lambda: "the process is stopping" if self._stopping.is_set() else None,
                **{f"{r.resource}-synced": _check_synced(r) for r in self._reflectors},
            },
            routes={"/debug/cache-check": self._cache_check, "/debug/gangs": self._list_gangs},
        )

    def _check_loop(self) -> str | None:
        idle_s = time.monotonic() - self.loop.last_turn_at
        return None if idle_s < STALLED_AFTER_S else f"no turn for {idle_s:.0f} s"

    async def _cache_check(self) -> Any:
        return await compare_with_api(self._client, self.engine, pod_selector=UNFINISHED)

    async def _list_gangs(self) -> Any:
        return await list_gangs(self.engine, lambda: self.loop.gangs.committing, leads=self._leads)


def _unacknowledged_s(election: LeaderElection) -> float:
    """What a broken network still holds when the next leader may begin must not reach the API server."""
    if not election.leader_elect:
        return UNACKNOWLEDGED_S
    spare_s = math.ceil(election.lease_duration_s) - election.renew_deadline_s
    return min(UNACKNOWLEDGED_S, max(MIN_UNACKNOWLEDGED_S, spare_s))


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _freeze_collected() -> None:
    """The first full lists live long and hold no cycles: keep the collector from walking them again
    and again (a full pass over 50,000 pods takes longer than a hundred decisions)."""
    gc.collect()
    gc.freeze()


def _name_in(error: Exception) -> str:
    """`namespace/name` of an object that could not be decoded, as far as these could."""
    if not isinstance(error, Undecodable):
        return ""
    return "/".join(filter(None, (error.metadata.namespace, error.metadata.name)))


def _check_synced(reflector: Reflector[Any]) -> Callable[[], str | None]:
    return lambda: None if reflector.synced else f"the watch of {reflector.resource} is not in sync"
