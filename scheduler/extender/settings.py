"""What `wholepod extender` is told beside the scheduler's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scheduler.config import ConfigurationError, split_address

DEFAULT_ADDRESS = "127.0.0.1:10262"
DEFAULT_HTTP_TIMEOUT_S = 5.0
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class ExtenderSettings:
    """Where kube-scheduler asks, and how it is answered."""

    address: str = DEFAULT_ADDRESS
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    """Who asks has to present a certificate that these certificates have signed."""
    http_timeout_s: float = DEFAULT_HTTP_TIMEOUT_S
    """`httpTimeout` of kube-scheduler's configuration: an answer after that is none."""
    unknown_nodes: Literal["refuse", "pass"] = "refuse"
    max_request_bytes: int = 64 * MEBIBYTE

    @classmethod
    def of(cls, **values: object) -> ExtenderSettings:
        """Checked; None stands for the default. Raises ConfigurationError."""
        settings = cls(**{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
        host, _ = split_address(settings.address)
        for wrong, text in (
            (bool(settings.cert_file) != bool(settings.key_file), "needs --tls-cert-file and --tls-key-file"),
            (
                settings.client_ca_file and not settings.cert_file,
                "--tls-client-ca-file needs --tls-cert-file and --tls-key-file, too",
            ),
            (
                not settings.client_ca_file and host not in ("127.0.0.1", "::1", "localhost"),
                f"--address {settings.address} is reachable from other machines, and who asks may have pods "
                "bound: set --tls-cert-file, --tls-key-file and --tls-client-ca-file, or use 127.0.0.1",
            ),
            (not 0.1 <= settings.http_timeout_s <= 300, "--http-timeout must be 100ms to 5m"),
            (settings.max_request_bytes < MEBIBYTE, "--max-request-mib must be at least 1"),
        ):
            if wrong:
                raise ConfigurationError(f"extender: {text}")
        return settings
