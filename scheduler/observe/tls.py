"""TLS of our own endpoints."""

import ssl

from scheduler.config import ConfigurationError, Tls


def server_context(tls: Tls) -> ssl.SSLContext | None:
    """None where no certificate is set. Raises ConfigurationError."""
    if not tls.cert_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"cannot use tls.certFile {tls.cert_file} with tls.keyFile {tls.key_file}: {error}"
        ) from error
    return context
