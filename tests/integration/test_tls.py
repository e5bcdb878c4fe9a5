"""What the tests' own HTTPS connections leave open when a server dies under them: nothing."""

import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from tests.cluster.tls import TlsConnection

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""`SO_LINGER` for no time."""


def test_a_server_that_resets_every_connection_leaves_none_open() -> None:
    """Pytest would turn the warning of a socket that was forgotten into a failure as well, but not always."""
    tls = ssl.create_default_context()
    with _resetting_server() as port:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(200):
            connection = TlsConnection("127.0.0.1", port, tls=tls, timeout_s=10.0)
            with closing(connection), pytest.raises((ConnectionError, ssl.SSLError)):
                connection.request("GET", "/")
        assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def _resetting_server() -> Iterator[int]:
    """The port of a server that resets each connection when it is made."""

    def reset_everybody() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        resetting = threading.Thread(target=reset_everybody)
        resetting.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            resetting.join()
