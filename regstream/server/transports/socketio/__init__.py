"""``/socket.io/``: Socket.IO for the JavaScript client that dashboards use, beside ``/ws`` and with the same positions.

The library knows the protocol: handshakes, polls, pings, the namespace. Events do not go through it: on a WebSocket
they are ready frames, straight to the transport and several in one write; to a client that polls they are given when
it asks. Either way they wait in the bounded queue of the hub's subscriber, and acknowledgements with them, so that the
order of what a client sees is the order of what happened.
"""

from __future__ import annotations

from regstream.server.transports.socketio.socketio import (
    Sessions,
    attach,
)

__all__ = [
    "Sessions",
    "attach",
]
