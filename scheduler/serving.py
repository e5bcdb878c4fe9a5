"""Where operators ask: the server's address, certificate and who may ask what, by the configuration."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry

from scheduler.config import Configuration, ConfigurationError, Tls, split_address
from scheduler.kube.client import KubeClient
from scheduler.kube.delegated import DelegatedAuthorizer
from scheduler.observe.server import Check, Server
from scheduler.observe.tls import Certificate, keep_fresh


async def serve_operators(
    stack: AsyncExitStack,
    client: KubeClient,
    configuration: Configuration,
    *,
    registry: CollectorRegistry,
    live: Mapping[str, Check],
    ready: Mapping[str, Check],
    routes: Mapping[str, Callable[[], Awaitable[Any]]],
) -> int:
    """Listens until the stack is closed; returns the port. Raises ConfigurationError when it can't."""
    server = Server(
        registry=registry,
        live=live,
        ready=ready,
        configuration=msgspec.to_builtins(configuration),
        routes=routes,
        authorize=DelegatedAuthorizer(client) if configuration.delegates_authorization else None,
    )
    certificate = _certificate(configuration.tls)
    return await listen(stack, server, configuration.bind_address, certificate, option="--bind-address")


class Listener(Protocol):
    """What `listen` starts and stops."""

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None, /) -> int: ...

    async def stop(self) -> None: ...


async def listen(
    stack: AsyncExitStack, server: Listener, address: str, certificate: Certificate | None, *, option: str
) -> int:
    """Listens until the stack is closed, with a certificate that is taken up when it changes; returns the
    port. Raises ConfigurationError, which names the `option` that the address is from, when it can't."""
    host, port = split_address(address)
    try:
        port = await server.start(host, port, certificate.context if certificate is not None else None)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {address}: {error.strerror or error}; "
            f"choose another {option} (port 0 picks a free one)"
        ) from error
    stack.push_async_callback(server.stop)
    if certificate is not None:
        renewal = asyncio.create_task(keep_fresh(certificate), name="renew a certificate")
        stack.callback(renewal.cancel)
    return port


def _certificate(tls: Tls) -> Certificate | None:
    if not tls.cert_file:
        return None
    try:
        return Certificate(Path(tls.cert_file), Path(tls.key_file))
    except OSError as error:
        raise ConfigurationError(
            f"cannot use tls.certFile {tls.cert_file} with tls.keyFile {tls.key_file}: {error}"
        ) from error
