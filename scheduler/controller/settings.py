"""What flags say, beside the configuration file that the controller shares with the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from scheduler.config import ConfigurationError, split_address


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    install_crds: bool = False
    webhook_address: str = ""
    """HOST:PORT; empty: no webhook."""
    webhook_cert_file: str = ""
    webhook_key_file: str = ""

    @classmethod
    def of(
        cls, *, install_crds: bool, webhook_address: str, webhook_cert_file: str, webhook_key_file: str
    ) -> Self:
        """Raises ConfigurationError for what makes no sense together."""
        files = (webhook_cert_file, webhook_key_file)
        if webhook_address:
            split_address(webhook_address)
            if not all(files):
                raise ConfigurationError(
                    "--webhook-address needs --webhook-cert-file and --webhook-key-file: the API server "
                    "speaks to webhooks by TLS only"
                )
        elif any(files):
            raise ConfigurationError("a certificate for the webhook is of no use without --webhook-address")
        return cls(
            install_crds=install_crds,
            webhook_address=webhook_address,
            webhook_cert_file=webhook_cert_file,
            webhook_key_file=webhook_key_file,
        )
