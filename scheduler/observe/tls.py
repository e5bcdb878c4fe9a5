"""The certificate that we serve with, renewed without a restart.

Certificates in a cluster are renewed every few weeks, by writing new files; who reads them at start only
serves an expired one one day.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 30.0


class Certificate:
    """A chain and its key, in PEM. Raises OSError or ssl.SSLError when they can't be used.

    With a `client_ca_file` only those are served that present a certificate which it has signed. What is
    added to that file counts without a restart; what is taken out of it counts after one.
    """

    def __init__(self, cert_file: Path, key_file: Path, *, client_ca_file: Path | None = None) -> None:
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self._loaded = self._read()
        self.context = self._checked()

    def renew(self) -> bool:
        """Takes up other files, for connections that are made from now on; returns whether there were any.

        Raises OSError or ssl.SSLError, and goes on with the ones before, when they can't be used: the two
        files are not written at one moment.
        """
        found = self._read()
        if found == self._loaded:
            return False
        self._checked()  # first elsewhere: a chain without its key would leave the context of no use
        self._load(self.context)
        self._loaded = found
        return True

    def _read(self) -> list[bytes]:
        files = (self._cert_file, self._key_file, self._client_ca_file)
        return [file.read_bytes() for file in files if file is not None]

    def _checked(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._cert_file, self._key_file)
        if self._client_ca_file is not None:
            # As Go's verifier, hence every other component of a cluster, does: from Python 3.13 on, the
            # default refuses authorities without a key usage.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.load_verify_locations(self._client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED


async def keep_fresh(
    certificate: Certificate, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Until cancelled."""
    told = ""
    while True:
        await sleep(LOOK_EVERY_S)
        try:
            if certificate.renew():
                log.info("certificate renewed")
            told = ""
        except OSError as error:  # ssl.SSLError is one
            if str(error) != told:
                log.warning("certificate can't be renewed; the one before is still in use", error=str(error))
            told = str(error)
