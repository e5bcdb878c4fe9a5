"""Where the API server is and how to prove who we are, from `kubernetes.aio`.

The official client reads kubeconfig files (merging, exec plugins, OIDC, client certificates)
and in-cluster service accounts; of it we use this and its TLS settings, nothing else: its
generated models cost forty times our decoding. It is imported on first use, since that takes a
second, which `wholepod --help` need not wait for.

Lookup order, as in controller-runtime: the given path, `$KUBECONFIG`, the service account of
the pod we run in, `~/.kube/config`.
"""

import asyncio
import importlib.util
import os
import ssl
import sys
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import yaml

from scheduler.kube.errors import ConfigError

log = structlog.get_logger(__name__)


@contextmanager
def _only_the_asynchronous_client() -> Iterator[None]:
    """Importing `kubernetes.aio` would first run `kubernetes/__init__.py`, which loads the synchronous
    client with requests, oauthlib and websockets: a third of a second for nothing. The parent package
    is put in place without being run, and taken away again for those who want all of it."""
    if "kubernetes" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("kubernetes")
    if spec is None:
        raise ConfigError("the package `kubernetes` is not installed")
    sys.modules["kubernetes"] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules["kubernetes"]


REFRESH_TIMEOUT_S = 10.0


class Access:
    """One API server and our credentials for it.

    `server` is the URL without a trailing slash; `proxy` and `server_hostname` are what aiohttp
    takes by these names. `authorization` is the header's value, "" for none.
    """

    def __init__(self, configuration: Any, *, refresh: Callable[[], Awaitable[None]] | None) -> None:
        with _only_the_asynchronous_client():
            from kubernetes.aio.client import rest

        # Go's verifier, hence every other component of a cluster, accepts certificates without the
        # extensions that OpenSSL's strict mode (the default since Python 3.13) insists on.
        configuration.disable_strict_ssl_verification = True
        library: Any = rest
        self.server: str = configuration.host.rstrip("/")
        # Only when needed: reading the system's certificates takes a while.
        self.ssl_context: ssl.SSLContext | bool = self.server.startswith("https:") and (
            library.RESTClientObject(configuration).ssl_context
        )
        self.server_hostname: str | None = configuration.tls_server_name
        self.proxy: str | None = configuration.proxy or _proxy_from_environment(self.server)
        self._configuration = configuration
        self._refresh = refresh
        self.authorization = self._header()

    async def refresh(self) -> None:
        """Take up a rotated token; on failure the old one stays in use and a warning is logged."""
        if self._refresh is None:
            return
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):  # a plugin may wait for its service for ever
                await self._refresh()
        except Exception as error:  # a plugin's or a file's fault: anything can come out of there
            log.warning("credentials could not be refreshed, going on with the old ones", error=str(error))
            return
        self.authorization = self._header()

    def _header(self) -> str:
        return str(self._configuration.api_key.get("BearerToken", "")).strip()


async def load_access(kubeconfig: Path | None, *, environ: Mapping[str, str] = os.environ) -> Access:
    """Raises `ConfigError` with a text for the user."""
    if kubeconfig is not None:
        return await _from_file(str(kubeconfig), named_by="--kubeconfig")
    if environ.get("KUBECONFIG"):
        return await _from_file(environ["KUBECONFIG"], named_by="$KUBECONFIG")
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster()
    return await _from_file("~/.kube/config", named_by="the default place")


async def _from_file(paths: str, *, named_by: str) -> Access:
    with _only_the_asynchronous_client():
        from kubernetes.aio import client, config

    _require_file(paths, named_by)
    library: Any = config
    configuration: Any = client.Configuration()
    try:
        loader: Any = await library.load_kube_config(
            config_file=paths, client_configuration=configuration, persist_config=False
        )
        plugin: Any = loader._user["exec"] if loader._user and "exec" in loader._user else None
    except (library.ConfigException, yaml.YAMLError) as error:
        raise ConfigError(f"kubeconfig {paths} cannot be used: {_one_line(error)}") from error
    except Exception as error:  # what the library trips over when something is not there
        raise ConfigError(
            f"kubeconfig {paths} cannot be used: does its current-context name a context with a cluster "
            f"and a user that exist? ({type(error).__name__}: {_one_line(error)})"
        ) from error
    if plugin is not None and not (hasattr(loader, "token") or configuration.cert_file):
        raise ConfigError(f"kubeconfig {paths}: {await _why_plugin_failed(plugin)}")

    async def refresh() -> None:
        # A plugin that names no expiry would be run every minute; it is asked once, as in client-go.
        if plugin is None or hasattr(loader, "exec_plugin_expiry"):
            await loader.load_and_set(configuration)

    return Access(configuration, refresh=refresh)


def _require_file(paths: str, named_by: str) -> None:
    """The library only logs that none of the files exists, and then fails on a None."""
    if not any(os.path.isfile(os.path.expanduser(path)) for path in paths.split(os.pathsep)):
        raise ConfigError(
            f"no kubeconfig at {paths} ({named_by}): give one with --kubeconfig FILE or $KUBECONFIG"
        )


async def _why_plugin_failed(plugin: Any) -> str:
    """The library only logs a plugin's failure, and goes on without credentials."""
    with _only_the_asynchronous_client():
        from kubernetes.aio.config import exec_provider

    library: Any = exec_provider
    try:
        await library.ExecProvider(plugin).run()
    except Exception as error:
        return f"the exec plugin gave no credentials: {_one_line(error)}"
    return "the exec plugin gave neither a token nor a certificate with its key"


def _in_cluster() -> Access:
    with _only_the_asynchronous_client():
        from kubernetes.aio import client, config

    library: Any = config
    configuration: Any = client.Configuration()
    try:
        library.load_incluster_config(client_configuration=configuration)
    except Exception as error:
        raise ConfigError(
            f"in-cluster credentials cannot be used: {_one_line(error)}; "
            "is automountServiceAccountToken off for this pod?"
        ) from error

    async def refresh() -> None:
        configuration.refresh_api_key_hook(configuration)

    return Access(configuration, refresh=refresh)


def _proxy_from_environment(server: str) -> str | None:
    """HTTPS_PROXY and NO_PROXY, read once: aiohttp's own lookup costs 0.2 ms in each request.

    This machine is never reached through a proxy, whatever NO_PROXY says (Go: httpproxy.FromEnvironment).
    """
    url = urllib.parse.urlsplit(server)
    host = url.hostname or "localhost"
    if host in ("localhost", "::1") or host.startswith("127.") or urllib.request.proxy_bypass(url.netloc):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
