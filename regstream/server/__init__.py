"""Requests in, answers out: HTTP and WebSocket over one Sanic application."""
