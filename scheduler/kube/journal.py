"""What must survive us while gangs are being bound: one ConfigMap, one key for each gang in flight.

**Why a journal.** A bind can't be undone in Kubernetes, and a gang is many binds. A scheduler that dies
between the first and the last leaves a gang that holds room and can't run. The cluster alone doesn't tell
its heir that: a gang with two of three members bound may be one that lost a member yesterday, or one whose
members a user binds by hand. So before the first bind we say what we are about to do, and we take it back
when it is done or undone. What is written is an intent, not a plan. The heir has a truer picture of the
cluster than the dead had, so it plans again around what is bound, and no list of members is needed. An
entry stays at some 200 bytes whatever the size of its gang.

**What each state promises.**

* *No entry*: no bind of an incomplete gang is under way. Whoever reads this may plan the gang as new.
* `binding`: members may have been bound, or may still be. Each one bound for this entry bears its `txn`
  in the annotation `wholepod.io/txn`. At `minCount` the gang is complete and the entry goes.
* `compensating`: the gang was given up, and its bound members are being deleted. This never reverts: some
  may be gone already, so no heir may complete it. The entry goes when none of them is bound.

**Epochs.** A lease alone does not keep two schedulers apart, since a process that was stopped for a minute
finds its next line of code where it left it. So each new leader counts up the epoch in the ConfigMap
before it looks at the cluster. All writes are guarded by resourceVersion, hence whoever held an earlier
epoch can't write any more: its next write conflicts, it reads, and finds itself *fenced*. The epoch's
owner stands beside it, so that of two who count up to the same number only one believes to have done it.

**Why versions of pods make late binds harmless.** An earlier leader's binds may be on the wire, or be
executed late by an API server (it ends requests only after 60 s). Each bind of a member names the
resourceVersion of the pod that it is for, and this holds for each of them: *that version was read
before a moment at which the journal was in the epoch of the sender* (before the intent became durable, or
before `verify` when a version had to be read again). Now an heir counts up the epoch first, then lists
the pods, then changes every unbound member of the gangs in the journal (`gangs.recovery`). All versions
read under an earlier epoch are older than these changes. So each late bind either was executed before
the change, and the answer to the change shows it, or is refused.

**Writes** are grouped: what is asked for within 10 ms goes out as one update, and what arrives during a
write waits for the next. Removals are in no hurry (they only spare an heir work) and wait for company, for
half a second at most. A write whose answer is lost is settled by reading; until then it may still be
executed, so another one is sent in its place, with the same resourceVersion: one of the two wins, and we
learn which. That is why a serial number is written with each: an update that changes nothing is not
carried out and would not get in the way of the lost one.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec
import structlog

from scheduler.kube.backoff import Backoff
from scheduler.kube.client import KubeClient, Response
from scheduler.kube.errors import ApiError, ErrorKind, KubeError, OutcomeUnknown
from scheduler.kube.journal_format import (
    EPOCH,
    MAX_BYTES,
    OWNER,
    PREFIX,
    SERIAL,
    ConfigMap,
    Entry,
    Fenced,
    JournalError,
    JournalUnavailable,
    entries_in,
    key_of,
    number,
    same,
    size_bytes,
    taken_over,
    version_of,
)

log = structlog.get_logger(__name__)

JOURNAL_NAME = "wholepod-journal"
GROUP_S = 0.01
REMOVAL_WAITS_S = 0.5
INTENT_TIMEOUT_S = 10.0
"""An intent that is not durable by then is withdrawn: the plan behind it is old."""
_TIMEOUT_S = 5.0
_BACKOFF_CAP_S = 1.0  # an intent must meet several attempts before it is given up


class LeftBehind(NamedTuple):
    """What `Journal.open` found."""

    entries: tuple[Entry, ...]
    server_ahead_s: float
    """By how much the API server's clock, which also stamps conditions, is ahead of ours."""


_decode_map = msgspec.json.Decoder(ConfigMap).decode
_encode = msgspec.json.Encoder().encode


class Journal:
    """`open` it after the lease was taken and before pods are listed, then keep `run` going.

    `owner` names this process and no other, ever. `may_write` is asked before each write.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        owner: str,
        may_write: Callable[[], bool] = lambda: True,
        name: str = JOURNAL_NAME,
        max_bytes: int = MAX_BYTES,
        intent_timeout_s: float = INTENT_TIMEOUT_S,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.epoch = 0
        self.owner = owner
        self._client = client
        self._may_write = may_write
        self._wall = wall
        self._max_bytes = max_bytes
        self._intent_timeout_s = intent_timeout_s
        self._collection = f"/api/v1/namespaces/{namespace}/configmaps"
        self._path = f"{self._collection}/{name}"
        self._new_metadata = msgspec.Raw(_encode({"name": name, "namespace": namespace}))
        self._rng = rng or random.Random()
        self._backoff = Backoff(0.1, _BACKOFF_CAP_S, rng=self._rng)
        self._metadata: msgspec.Raw | None = None  # None: there is no ConfigMap
        self._stored: dict[str, str] = {}  # what the API server has, as far as we know
        self._wanted: dict[str, str] = {}
        self._unsure = False  # what we know must be read again; a write of ours may be under way still
        self._asked = 0
        self._waiting: list[_Waiter] = []
        self._due: float | None = None
        self._changed = asyncio.Event()
        self._fenced: Fenced | None = None
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last write failed; empty once one has succeeded."""
        return str(self._fenced) if self._fenced else self._trouble

    @property
    def in_flight(self) -> int:
        """Gangs that have an entry."""
        return sum(1 for key in self._wanted if key.startswith(PREFIX))

    async def open(self) -> LeftBehind:
        """Take the journal over: count up its epoch. It is created if there is none.

        Waits for an API server that does not answer. Raises JournalUnavailable if it refuses, Fenced if
        we do not lead.
        """
        while True:
            self._require_leadership()
            try:
                answer = await self._read()
                if self._stored.get(OWNER) != self.owner:  # else a write without an answer got there
                    await self._write(taken_over(self._stored, self.owner))
                break
            except KubeError as error:
                self._troubled(error)
                if _is_refusal(error):
                    raise JournalUnavailable(self._why(error)) from error
                await asyncio.sleep(max(self._backoff.next(), _asked_to_wait_s(error)))
        self.epoch, self._wanted = number(self._stored[EPOCH]), dict(self._stored)
        entries = entries_in(self._stored)
        log.info("journal opened", epoch=self.epoch, gangs_left_behind=len(entries))
        return LeftBehind(entries, 0.0 if answer is None else self._server_ahead_s(answer))

    def _server_ahead_s(self, answer: Response) -> float:
        """0 if the answer does not say what time it is."""
        try:
            date = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return 0.0
        return date.timestamp() - self._wall()

    async def run(self) -> None:
        """Write what is asked for, until cancelled. Raises Fenced."""
        try:
            while True:
                await self._wait_until_due()
                if retry_in_s := await self._attempt():
                    await asyncio.sleep(retry_in_s)
                    self._write_at(asyncio.get_running_loop().time())
        finally:
            closed = self._fenced or JournalUnavailable("the journal was closed")
            for waiter in self._waiting:
                waiter.fail(closed)
            self._waiting.clear()

    async def record(self, entry: Entry) -> None:
        """Return when the intent is durable. Raises JournalUnavailable or Fenced; it must not be acted on,
        then, and will be gone once the journal can be written."""
        self._require_open()
        key, text = key_of(entry.txn), _encode(entry).decode()
        size = size_bytes(self._wanted) + len(key) + len(text.encode())
        if size > self._max_bytes:
            raise JournalUnavailable(
                f"the journal is full: {self.in_flight} gangs are being bound at once, and another entry "
                f"would make it {size} bytes of the {self._max_bytes} that a ConfigMap can hold"
            )
        self._wanted[key] = text
        try:
            async with asyncio.timeout(self._intent_timeout_s):
                await self._ask(GROUP_S, intent=True)
        except TimeoutError:
            self._withdraw(key)
            raise JournalUnavailable(self._why(self._trouble or "no answer in time")) from None
        except (JournalUnavailable, asyncio.CancelledError):
            self._withdraw(key)
            raise

    async def update(self, entry: Entry) -> None:
        """Return when the entry reads so, however long that takes. Raises Fenced."""
        self._require_open()
        self._wanted[key_of(entry.txn)] = _encode(entry).decode()
        await self._ask(GROUP_S)

    async def remove(self, txn: str) -> None:
        """Return when the entry is gone, after a second at most if all goes well. Raises Fenced."""
        self._require_open()
        if self._wanted.pop(key_of(txn), None) is not None:
            await self._ask(REMOVAL_WAITS_S)

    async def verify(self) -> None:
        """Return when the API server has said that the journal is still ours. Raises Fenced.

        What was read before this was called, was read in our epoch.
        """
        self._require_open()
        backoff = Backoff(0.1, _BACKOFF_CAP_S, rng=self._rng)
        while True:
            self._require_leadership()
            try:
                answer = await self._client.request("GET", self._path, timeout_s=_TIMEOUT_S)
                self._require_ownership(_decode(answer).data or {})
                return
            except Fenced:
                raise
            except KubeError as error:
                if _is_not_found(error):  # deleted by hand: that we can write it anew says as much
                    self._unsure = True
                    await self._ask(GROUP_S)
                    return
                self._troubled(error)
                await asyncio.sleep(backoff.next())

    # Asking.

    async def _ask(self, within_s: float, *, intent: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._asked += 1
        waiter = _Waiter(self._asked, intent, loop.create_future())
        self._waiting.append(waiter)
        self._write_at(loop.time() + within_s)
        await waiter.done

    def _withdraw(self, key: str) -> None:
        """An intent that nobody waits for any more; it may have become durable all the same."""
        if self._wanted.pop(key, None) is not None:
            self._write_at(asyncio.get_running_loop().time())

    def _write_at(self, due: float) -> None:
        self._due = due if self._due is None else min(due, self._due)
        self._changed.set()

    async def _wait_until_due(self) -> None:
        clock = asyncio.get_running_loop().time
        while self._due is None or clock() < self._due:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(self._due):
                    await self._changed.wait()
            except TimeoutError:
                break
            if self._fenced is not None:
                raise self._fenced
        self._due = None

    # Writing.

    async def _attempt(self) -> float:
        """Bring the ConfigMap to what is wanted now. Returns the seconds to wait if that has to be tried
        again. Raises Fenced."""
        self._require_leadership()
        try:
            if self._unsure:
                await self._read()
                if self._metadata is not None:
                    self._require_ownership(self._stored)
            target, wanted = self._asked, dict(self._wanted)
            if self._unsure or not same(wanted, self._stored):
                await self._write(wanted)
        except Fenced:
            raise
        except KubeError as error:
            self._troubled(error)
            if _is_refusal(error):
                for waiter in self._waiting:
                    if waiter.intent:
                        waiter.fail(JournalUnavailable(self._why(error)))
            return max(self._backoff.next(), _asked_to_wait_s(error))
        for waiter in self._waiting:
            if waiter.number <= target:
                waiter.succeed()
        self._waiting = [waiter for waiter in self._waiting if not waiter.done.done()]
        return 0.0

    async def _write(self, data: dict[str, str]) -> None:
        """Raises ApiError, Unreachable, OutcomeUnknown."""
        data[SERIAL] = str(number(self._stored.get(SERIAL, "")) + 1)
        metadata = self._metadata
        try:
            if metadata is None:
                body = _encode(ConfigMap(metadata=self._new_metadata, data=data))
                answer = await self._client.request("POST", self._collection, body=body, timeout_s=_TIMEOUT_S)
            else:
                body = _encode(ConfigMap(metadata=metadata, data=data))
                answer = await self._client.request("PUT", self._path, body=body, timeout_s=_TIMEOUT_S)
            written = _decode(answer)
        except (ApiError, OutcomeUnknown) as error:
            # Lost, or somebody else has written or deleted it. A 429 or a refusal leaves all as it was.
            if not _is_refusal(error) and not _is_throttling(error):
                self._unsure = True
            raise
        self._metadata, self._stored, self._unsure = written.metadata, data, False
        self._all_is_well()

    async def _read(self) -> Response | None:
        """The state now (a quorum read). None if there is none. We stay unsure as long as a write of ours
        may be executed: until the resourceVersion that it names is past."""
        try:
            answer = await self._client.request("GET", self._path, timeout_s=_TIMEOUT_S)
        except ApiError as error:
            if not _is_not_found(error):
                raise
            self._unsure = self._unsure and self._metadata is None
            self._metadata, self._stored = None, {}
            return None
        found = _decode(answer)
        before = None if self._metadata is None else version_of(self._metadata)
        self._unsure = self._unsure and before == version_of(found.metadata)
        self._metadata, self._stored = found.metadata, found.data or {}
        return answer

    # What holds.

    def _require_open(self) -> None:
        if self._fenced is not None:
            raise self._fenced
        if self.epoch == 0:
            raise JournalUnavailable(self._why(self._trouble or "it has not been opened"))

    def _require_leadership(self) -> None:
        if self._fenced is None and not self._may_write():
            self._fence("this process does not lead any more")
        if self._fenced is not None:
            raise self._fenced

    def _require_ownership(self, data: Mapping[str, str]) -> None:
        if (data.get(EPOCH), data.get(OWNER)) != (str(self.epoch), self.owner):
            self._fence(
                f"the journal {self._path} is in epoch {data.get(EPOCH)} of {data.get(OWNER)}, "
                f"not in epoch {self.epoch} of {self.owner}"
            )
            self._require_leadership()

    def _fence(self, why: str) -> None:
        self._fenced = Fenced(why)
        log.error("fenced: no gang is committed any more", why=why)
        self._changed.set()

    def _troubled(self, error: object) -> None:
        if not self._trouble:
            log.warning("the journal can't be written, no gang is committed", error=str(error))
        self._trouble = str(error)

    def _all_is_well(self) -> None:
        if self._trouble:
            log.info("the journal is written again")
        self._trouble = ""
        self._backoff.reset()

    def _why(self, reason: object) -> str:
        return f"the journal {self._path} can't be written: {reason}"


class _Waiter(NamedTuple):
    """Somebody who asked for a write; `number` counts them."""

    number: int
    intent: bool
    done: asyncio.Future[None]

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: JournalError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _decode(answer: Response) -> ConfigMap:
    try:
        return _decode_map(answer.body)
    except msgspec.DecodeError as error:
        raise OutcomeUnknown(f"the API server's ConfigMap can't be read: {error}") from error


def _is_not_found(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.kind is ErrorKind.NOT_FOUND


def _is_throttling(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.kind is ErrorKind.TOO_MANY_REQUESTS


def _asked_to_wait_s(error: KubeError) -> float:
    return (error.retry_after_s or 0.0) if isinstance(error, ApiError) else 0.0


def _is_refusal(error: Exception) -> bool:
    """Not executed, and no repetition will be as things are."""
    refusals = (ErrorKind.INVALID, ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN)
    return isinstance(error, ApiError) and error.kind in refusals
