"""What the journal's ConfigMap holds (see `journal`): an entry for each gang in flight, an epoch, its owner.

Everything in it may have been edited by hand, or written by a version to come. What can't be read is
dropped aloud when the journal is taken over: nobody could act on it, and it would stay for ever.
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec
import structlog

from scheduler.kube.errors import KubeError

log = structlog.get_logger(__name__)

EPOCH, OWNER, SERIAL, PREFIX = "epoch", "owner", "serial", "gang."
# The API server allows 1 MiB of values (core.MaxSecretSize). Room is left for the entries to grow when
# their state changes: a compensation must never fail for want of room.
MAX_BYTES = 900_000
_TXN = re.compile(r"[-._a-zA-Z0-9]{1,200}")  # with the prefix, what validation.IsConfigMapKey allows


class JournalError(KubeError):
    """A gang can't be committed. Pods outside gangs are not concerned."""


class JournalUnavailable(JournalError):
    """The intent is not durable and won't become so: nothing may be bound."""


class Fenced(JournalError):
    """Another scheduler has the journal: whatever we had under way is its business now."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A gang in flight. `gang` is the core's name for it, opaque here; `started` is Unix time in seconds.

    `uid` is that of the group's API object, empty if it has none; `min_count` and `domain` are frozen for
    as long as the entry stands.
    """

    txn: str
    gang: str
    uid: str = ""
    min_count: int
    domain: str = ""
    epoch: int
    state: Literal["binding", "compensating"] = "binding"
    started: int


class ConfigMap(msgspec.Struct, rename="camel"):
    """core/v1, trimmed."""

    # Sent back as it came, as in a Lease: it holds the resourceVersion that guards the write.
    metadata: msgspec.Raw
    data: dict[str, str] | None = None
    api_version: str = "v1"
    kind: str = "ConfigMap"


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str = ""


_decode_version = msgspec.json.Decoder(_Version).decode
_decode_entry = msgspec.json.Decoder(Entry).decode


def version_of(metadata: msgspec.Raw) -> str:
    """Its resourceVersion."""
    return _decode_version(metadata).resource_version


def key_of(txn: str) -> str:
    """Where the transaction's entry is."""
    if not _TXN.fullmatch(txn):
        raise ValueError(f"a transaction can't be called {txn!r}")
    return PREFIX + txn


def entries_in(data: Mapping[str, str]) -> tuple[Entry, ...]:
    """Of a journal that was taken over."""
    return tuple(_decode_entry(text) for key, text in data.items() if key.startswith(PREFIX))


def taken_over(stored: Mapping[str, str], owner: str) -> dict[str, str]:
    """The journal's next epoch: all of it that can be read, and a new owner."""
    data: dict[str, str] = {}
    epoch = number(stored.get(EPOCH, ""))
    for key, text in stored.items():
        if not key.startswith(PREFIX):
            continue
        try:
            entry = _decode_entry(text)
            if key != key_of(entry.txn):
                raise ValueError(f"it calls itself {entry.txn!r}")
        except ValueError as error:
            log.error("dropped a journal entry that can't be read", key=key, text=text, error=str(error))
        else:
            epoch = max(epoch, entry.epoch)
            data[key] = text
    return data | {EPOCH: str(epoch + 1), OWNER: owner}


def same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """But for the serial number."""
    return {**one, SERIAL: ""} == {**other, SERIAL: ""}


def size_bytes(data: Mapping[str, str]) -> int:
    """Keys and values."""
    return sum(len(key) + len(text.encode()) for key, text in data.items())


def number(text: str) -> int:
    """0 for what only a human can have written there."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
