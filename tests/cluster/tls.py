"""HTTPS connections that leave nothing open, whatever the server does while they are made."""

import http.client
import socket
import ssl


class TlsConnection(http.client.HTTPSConnection):
    """To a server on loopback.

    `http.client` connects first and then wraps the socket; when the server has reset the connection in
    between, `ssl` forgets to close the socket, and nobody else knows it any more. Here it is wrapped first,
    while there is no server that could do anything, and is `sock`, which `close` closes, before it connects.
    """

    def __init__(self, host: str, port: int | None, *, tls: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(host, port, context=tls, timeout=timeout_s)
        self._tls, self._timeout_s = tls, timeout_s

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(socket.socket(), server_hostname=self.host)
        self.sock.settimeout(self._timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect((self.host, self.port))
