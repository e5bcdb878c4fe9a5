"""Certificates, on real connections."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from scheduler.observe.tls import LOOK_EVERY_S, Certificate, keep_fresh


def write(folder: Path, authority: trustme.CA, serial_name: str) -> tuple[Path, Path]:
    """A certificate for this name in the two files."""
    issued = authority.issue_cert(serial_name)
    cert, key = folder / "tls.crt", folder / "tls.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key


async def served_name(context: ssl.SSLContext, authority: trustme.CA) -> str:
    """The name in the certificate that a new connection is shown."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    authority.configure_trust(trusting)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        names = writer.get_extra_info("peercert")["subjectAltName"]
        writer.close()
        await writer.wait_closed()
    return str(names[0][1])


async def test_new_files_are_served_without_a_restart(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = Certificate(*write(tmp_path, authority, "before.example"))
    assert await served_name(certificate.context, authority) == "before.example"
    assert not certificate.renew()
    write(tmp_path, authority, "after.example")
    assert certificate.renew()
    assert await served_name(certificate.context, authority) == "after.example"


async def test_half_written_files_leave_the_one_before_in_use(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert, key = write(tmp_path, authority, "before.example")
    certificate, old_key = Certificate(cert, key), key.read_bytes()
    write(tmp_path, authority, "after.example")
    new_key = key.read_bytes()
    key.write_bytes(old_key)
    with pytest.raises(ssl.SSLError, match="mismatch"):
        certificate.renew()
    assert await served_name(certificate.context, authority) == "before.example"
    key.write_bytes(new_key)
    assert certificate.renew()
    assert await served_name(certificate.context, authority) == "after.example"


async def test_files_are_looked_at_again_and_trouble_is_told_once(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert, key = write(tmp_path, authority, "before.example")
    certificate = Certificate(cert, key)
    looks = iter(["gone", "gone", "back", "end"])

    async def sleep(seconds: float) -> None:
        assert seconds == LOOK_EVERY_S
        match next(looks):
            case "gone":
                cert.unlink(missing_ok=True)
            case "back":
                write(tmp_path, authority, "after.example")
            case _:
                raise asyncio.CancelledError

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await keep_fresh(certificate, sleep=sleep)
    assert [line["event"] for line in logs] == [
        "certificate can't be renewed; the one before is still in use",
        "certificate renewed",
    ]
    assert await served_name(certificate.context, authority) == "after.example"


def test_clients_authorities_need_no_key_usage(tmp_path: Path) -> None:
    """Python 3.13 asks for one by default, and refuses what the rest of a cluster accepts."""
    authority = trustme.CA()
    cert, key = write(tmp_path, authority, "extender.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    context = Certificate(cert, key, client_ca_file=tmp_path / "ca.crt").context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
