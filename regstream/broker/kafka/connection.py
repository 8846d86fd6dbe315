"""How to reach a cluster."""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from regstream import errors

ANSWER_SECONDS = 5.0
Place = tuple[str, int]
"""Topic and partition."""


class Connection(NamedTuple):
    """Bootstrap servers, comma separated, and the security settings; empty texts are unset."""

    servers: str
    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def options(self) -> dict[str, Any]:
        """The keywords that every client of the library takes. Raises BrokerError for files that cannot be used."""
        made: dict[str, Any] = {
            "bootstrap_servers": [one.strip() for one in self.servers.split(",")],
            "security_protocol": self.protocol,
            "retry_backoff_ms": 250,
            "request_timeout_ms": int(ANSWER_SECONDS * 1000),
        }
        if "SASL" in self.protocol:
            made |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return made | ({"ssl_context": self._tls()} if "SSL" in self.protocol else {})

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            raise errors.BrokerError(f"the TLS files cannot be used: {error}") from error
        return context
