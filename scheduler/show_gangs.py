"""`wholepod gangs`: what a scheduler says of its gangs, filtered and laid out for people.

Names of gangs and texts of conditions are written by whoever may create pods, and end on the terminal of
whoever runs the cluster: whatever could steer a terminal is shown as an escape. JSON is ASCII only.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduler.config import ConfigurationError
from scheduler.core.gangs.gang import Strategy
from scheduler.core.gangs.view import GangList, GangState, GangView

TIMEOUT_S = 10.0
NO_SUCH_GANG = 1
_SHOWN_BYTES = 300
_STYLES = {
    GangState.BOUND: "green",
    GangState.COMMITTING: "green",
    GangState.WAITING: "yellow",
    GangState.INCOMPLETE: "dim",
}
_UNBOUNDED = 100_000
"""Columns where no person looks: nothing is folded for a pipe."""


class Unreachable(OSError):
    """No scheduler answers there; the text says what might help."""


@dataclass(frozen=True)
class Selection:
    """Which gangs to show."""

    names: frozenset[tuple[str, str]]
    """(namespace, name); an empty namespace: any. Empty: all gangs."""
    namespace: str
    """Empty: all."""
    states: frozenset[str]
    strategies: frozenset[str]

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        *,
        namespace: str | None = None,
        states: Iterable[str] = (),
        strategies: Iterable[str] = (),
    ) -> Selection:
        """From the command line. Raises ConfigurationError."""
        wanted = set()
        for name in names:
            space, _, rest = name.rpartition("/")
            if not rest or "/" in space:
                raise ConfigurationError(f"{name!r} is no name of a gang: give NAME or NAMESPACE/NAME")
            if space and namespace and space != namespace:
                raise ConfigurationError(f"{name!r} is not in namespace {namespace!r}: give only one of them")
            wanted.add((space, rest))
        return cls(
            frozenset(wanted),
            namespace or "",
            _known("--state", states, [state.value for state in GangState]),
            _known("--strategy", strategies, [strategy.value for strategy in Strategy]),
        )

    def takes(self, gang: GangView) -> bool:
        names = {("", gang.name), (gang.namespace, gang.name)}
        return (
            (not self.names or bool(names & self.names))
            and self.namespace in ("", gang.namespace)
            and (not self.states or gang.state.value in self.states)
            and (not self.strategies or gang.strategy in self.strategies)
        )


def ask(
    url: str, *, ca_file: Path | None = None, verify: bool = True, token_file: Path | None = None
) -> GangList:
    """What the scheduler at `url` says. Raises ConfigurationError, and Unreachable when none answers."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"--url must be like http://HOST:PORT, got {url!r}")
    request = urllib.request.Request(f"{url.rstrip('/')}/debug/gangs")  # noqa: S310  (just checked)
    if token_file is not None:
        if parts.scheme != "https":
            raise ConfigurationError("--token-file needs an https --url: a token must not be read on the way")
        # Not to wherever we might be redirected.
        request.add_unredirected_header("Authorization", f"Bearer {_token(token_file)}")
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPSHandler(context=_tls(ca_file, verify=verify))
    ]
    if _is_loopback(parts.hostname):
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy's own loopback is never meant
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                why = printable(error.read(_SHOWN_BYTES).decode(errors="replace").strip())
                raise Unreachable(
                    f"the scheduler at {url} refuses ({error.code}): {why}; see --token-file"
                ) from None
            raise Unreachable(
                f"{url}/debug/gangs answered {error.code} {printable(error.reason)}: is it a Wholepod "
                "scheduler, of a version that has this command?"
            ) from None
    except (OSError, ValueError) as error:
        why = printable(str(getattr(error, "reason", error)))
        raise Unreachable(
            f"no scheduler answers at {url}: {why}; give its bindAddress by --url, or, if it runs in the "
            "cluster: kubectl port-forward -n kube-system deployment/wholepod 10259"
        ) from None
    try:
        return msgspec.json.decode(body, type=GangList)
    except msgspec.DecodeError as error:
        raise Unreachable(
            f"{url}/debug/gangs answered something else: {printable(str(error))}; is it a Wholepod scheduler?"
        ) from None


def show(answer: GangList, selection: Selection, *, as_json: bool) -> int:
    """Prints what is selected; returns the exit code."""
    gangs = [gang for gang in answer.gangs if selection.takes(gang)]
    if as_json:
        found = msgspec.to_builtins(msgspec.structs.replace(answer, gangs=tuple(gangs)))
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _show(gangs, answer, Console(), detailed=bool(selection.names))
    err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if not answer.leading:
        err.print("note: this scheduler does not lead; holds and claims are known to the one that does")
    missing = [
        f"{space}/{name}" if space else name
        for space, name in sorted(selection.names)
        if not any(name == gang.name and space in ("", gang.namespace) for gang in gangs)
    ]
    if missing:
        err.print(f"wholepod: no such gang: {', '.join(map(printable, missing))}")
        return NO_SUCH_GANG
    return 0


def printable(text: str) -> str:
    """The text with escapes in place of what is no visible character (controls, bidirectional marks)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def age(created: str, now: str) -> str:
    """As kubectl writes it: `45s`, `12m`, `3h`, `5d`; `?` if unknown."""
    try:
        seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):
        return "?"
    for unit, length, until in (("s", 1, 120), ("m", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < until:
            return f"{max(int(seconds // length), 0)}{unit}"
    return f"{int(seconds // 86400)}d"


# ---- internals


def _show(gangs: list[GangView], answer: GangList, console: Console, *, detailed: bool) -> None:
    if not gangs:
        _print(
            Text("No gangs." if not answer.gangs else f"None of {len(answer.gangs)} gangs is selected."),
            console,
        )
        return
    table = _table("NAMESPACE", "NAME", "STRATEGY", "STATE", "PLACED", "EXIST", "MIN", "AGE", "WAITS FOR")
    for gang in gangs:
        table.add_row(
            Text(printable(gang.namespace)),
            Text(printable(gang.name)),
            gang.strategy or "?",
            Text(gang.state.value, _STYLES.get(gang.state, "")),
            str(gang.placed),
            str(gang.existing),
            str(gang.min_count or "?"),
            age(gang.created, answer.now),
            Text(printable(_reason(gang))),
        )
    _print(table, console)
    for gang in gangs if detailed else ():
        _print(Text(f"\n{printable(gang.namespace)}/{printable(gang.name)}", "bold"), console)
        table = _table("MEMBER", "STATE", "NODE", "WAITS FOR")
        for member in gang.members:
            table.add_row(
                Text(printable(member.name)),
                member.state.value,
                Text(printable(member.node)),
                Text(printable(member.why)),
            )
        _print(table, console)
    if not detailed and len(gangs) > 1:
        counts = Counter(gang.state for gang in gangs)
        summary = ", ".join(f"{counts[state]} {state.value}" for state in GangState if counts[state])
        _print(Text(f"\n{len(gangs)} gangs: {summary}", "dim"), console)


def _reason(gang: GangView) -> str:
    kept = f"{gang.reserved_nodes} nodes are kept for it: " if gang.reserved_nodes else ""
    return kept + gang.waits_for


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "WAITS FOR", overflow="fold")
    return table


def _print(what: Table | Text, console: Console) -> None:
    if console.is_terminal:
        console.print(what)
        return
    wide = Console(width=_UNBOUNDED, color_system=None)
    with wide.capture() as captured:
        wide.print(what)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def _known(flag: str, values: Iterable[str], known: list[str]) -> frozenset[str]:
    wanted = frozenset(values)
    for value in sorted(wanted - set(known)):
        raise ConfigurationError(f"{flag} must be one of {', '.join(known)}, got {value!r}")
    return wanted


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read --token-file {file}: {error}") from error
    if not token or not token.isprintable() or not token.isascii():
        raise ConfigurationError(f"--token-file {file} holds no token")
    return token


def _tls(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use --ca-file {ca_file}: {error}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
