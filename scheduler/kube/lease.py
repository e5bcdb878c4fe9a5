"""A coordination.k8s.io Lease as a lock: the steps, without the thread (see `leader`).

As client-go's leader election (tools/leaderelection), with the same record:

* Nobody's clock but our own counts. Another holder has expired when the record has not *changed*,
  as seen from here, for the `leaseDurationSeconds` that the record itself names. Its timestamps are
  for people.
* A lease that somebody deletes is still its holder's, who makes it anew: others wait for as long as they
  would have waited for the record.
* Every write carries the resourceVersion that was read, so of two that see an expired lease one
  gets a 409.
* Who waits looks twice as often as the leader renews, and once more at the moment of expiry: what a
  candidate sees late, it can only count late.
* A leadership that has ended is over for this process, which knows nothing of what was done meanwhile.
* We lead until `renew_deadline_s` after the *start* of the last renewal that succeeded. Others wait
  at least `lease_duration_s` after it was executed, hence longer.
"""

import math
import random
import time
from collections.abc import Callable

import msgspec
import structlog

from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, KubeError
from scheduler.kube.payloads import micro_time, utc_now

log = structlog.get_logger(__name__)

_JITTER_FACTOR = 1.2  # leaderelection.JitterFactor
_MAX_TRANSITIONS = 2**31 - 1  # an int32 in the API; somebody may have written its last one by hand


class LeaseConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Raises ValueError for durations that cannot work, as client-go does."""

    namespace: str = "kube-system"
    name: str = "wholepod"
    lease_duration_s: int = 15
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if self.lease_duration_s <= self.renew_deadline_s:
            raise ValueError(
                f"leaseDuration ({self.lease_duration_s} s) must be longer than "
                f"renewDeadline ({self.renew_deadline_s} s)"
            )
        if self.renew_deadline_s <= self.retry_period_s * _JITTER_FACTOR:
            raise ValueError(
                f"renewDeadline ({self.renew_deadline_s} s) must be longer than "
                f"{_JITTER_FACTOR} x retryPeriod ({self.retry_period_s} s)"
            )
        if self.retry_period_s <= 0:
            raise ValueError(f"retryPeriod ({self.retry_period_s} s) must be above 0")


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class _Lease(msgspec.Struct, rename="camel"):
    # Sent back as it came: labels stay, and the resourceVersion in it guards the write.
    metadata: msgspec.Raw
    spec: _Spec = msgspec.field(default_factory=_Spec)
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


_decode = msgspec.json.Decoder(_Lease).decode
_encode = msgspec.json.Encoder().encode


def boottime() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class LeaseLock:
    """Our view of the lease. `leading_until` may be read from any thread."""

    def __init__(
        self,
        client: KubeClient,
        config: LeaseConfig,
        *,
        identity: str,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.leading_until = -math.inf
        self.holder = ""
        self._client = client
        self._config = config
        self._identity = identity
        self._clock = clock
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{config.namespace}/leases"
        self._path = f"{self._collection}/{config.name}"
        self._lease: _Lease | None = None
        self._expires_at = -math.inf  # of the record that we saw last, as another's
        self._complaint = ""

    @property
    def leading(self) -> bool:
        """Whether nobody else can hold the lease now."""
        return self._clock() < self.leading_until

    def retry_delay_s(self, rng: random.Random) -> float:
        """Until the next attempt to acquire; at random, so that candidates don't come in step."""
        delay_s = self._config.retry_period_s / 2 * (1.0 + (_JITTER_FACTOR - 1.0) * rng.random())
        to_expiry_s = self._expires_at - self._clock()
        return min(delay_s, to_expiry_s) if to_expiry_s > 0 else delay_s

    async def acquire_or_renew(self) -> bool:
        """One attempt; True if we hold the lease now. What goes wrong is logged."""
        held = self._lease if self._is_ours(self._lease) else None
        try:
            if held is not None:
                try:
                    return await self._write(held)
                except ApiError as error:
                    if error.kind not in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND):
                        raise
            await self._read()
            goes_on = self.leading and (self._lease is None or self._is_ours(self._lease))
            if held is not None and not goes_on:
                # It was another's meanwhile, or may have been; that it is free again changes nothing.
                self.leading_until = -math.inf
                return False
            if self._clock() < self._expires_at:
                return False
            return await (self._create() if self._lease is None else self._write(self._lease))
        except (KubeError, msgspec.DecodeError) as error:
            if str(error) != self._complaint:  # once, not every two seconds
                self._complaint = str(error)
                log.warning("lease not renewed" if self.leading else "lease not acquired", error=str(error))
            return False

    def _is_ours(self, lease: _Lease | None) -> bool:
        return lease is not None and lease.spec.holder_identity == self._identity

    async def release(self) -> None:
        """Let the next one in at once. We don't lead from here on, whether the write succeeds or not."""
        self.leading_until = -math.inf
        lease = self._lease
        if lease is None or not self._is_ours(lease):
            return
        now = micro_time(utc_now())
        lease.spec = _Spec(
            lease_duration_seconds=1,
            acquire_time=now,
            renew_time=now,
            lease_transitions=lease.spec.lease_transitions,
        )
        try:
            await self._put(lease)
        except KubeError as error:
            log.warning("lease not released, the next leader has to wait for it", error=str(error))

    async def _read(self) -> None:
        try:
            answer = await self._client.request("GET", self._path, timeout_s=self._timeout_s())
        except ApiError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            self._lease = None
            return
        lease = _decode(answer.body)
        if lease.spec.holder_identity in ("", self._identity):
            self._expires_at = -math.inf
        elif self._lease is None or lease.spec != self._lease.spec:
            self._expires_at = self._clock() + lease.spec.lease_duration_seconds
        self._lease = lease
        self._note_holder(lease.spec.holder_identity)

    async def _create(self) -> bool:
        name = {"name": self._config.name, "namespace": self._config.namespace}
        lease = _Lease(metadata=msgspec.Raw(_encode(name)), spec=self._record(None, transitions=0))
        started = self._clock()
        answer = await self._client.request(
            "POST", self._collection, body=_encode(lease), timeout_s=self._timeout_s()
        )
        self._hold(_decode(answer.body), since=started)
        return True

    async def _write(self, lease: _Lease) -> bool:
        """Take the lease over, or renew it if it is ours."""
        started, old = self._clock(), lease.spec
        ours = self._is_ours(lease)
        transitions = min(old.lease_transitions + (0 if ours else 1), _MAX_TRANSITIONS)
        spec = self._record(old.acquire_time if ours else None, transitions=transitions)
        self._hold(await self._put(_Lease(metadata=lease.metadata, spec=spec)), since=started)
        return True

    async def _put(self, lease: _Lease) -> _Lease:
        answer = await self._client.request(
            "PUT", self._path, body=_encode(lease), timeout_s=self._timeout_s()
        )
        return _decode(answer.body)

    def _record(self, acquire_time: str | None, *, transitions: int) -> _Spec:
        now = micro_time(utc_now())
        return _Spec(
            holder_identity=self._identity,
            lease_duration_seconds=self._config.lease_duration_s,
            acquire_time=acquire_time or now,
            renew_time=now,
            lease_transitions=transitions,
        )

    def _hold(self, lease: _Lease, *, since: float) -> None:
        self._lease = lease
        self._expires_at = -math.inf
        self._complaint = ""
        self.leading_until = since + self._config.renew_deadline_s
        self._note_holder(self._identity)

    def _note_holder(self, holder: str) -> None:
        if holder != self.holder:
            log.info("leader", holder=holder or "nobody", lease=self._path)
            self.holder = holder

    def _timeout_s(self) -> float:
        """So short that a lost answer leaves time for another attempt before the deadline."""
        half = self._config.renew_deadline_s / 2
        return max(0.1, min(half, self.leading_until - self._clock())) if self.leading else half
