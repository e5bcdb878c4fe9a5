"""Free ports that stay free.

A port handed out by the kernel (bind to 0, read, close) comes from the range from which outgoing
connections get theirs, so any of them may take it a moment later, and surely will while an API
server is down for a restart. These ports lie below that range (net.ipv4.ip_local_port_range starts at
32768), outside of the well-known and the node-port ranges.
"""

import http.client
import random
import socket

from tests.cluster.errors import ClusterError

FIRST, LAST = 20000, 29999
ATTEMPTS = 200
ANSWER_TIMEOUT_S = 2.0


def free_port() -> int:
    """A loopback TCP port that nobody listens on. Two callers at the same instant may get the same one."""
    for _ in range(ATTEMPTS):
        port = random.SystemRandom().randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ClusterError(f"no free port between {FIRST} and {LAST}")


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server on that loopback port answers a GET of `path` with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
