"""HTTP and WebSocket: requests in, answers out.

Nothing is decided here. A route translates a request into one call of the engine, the hub or the door, and what comes
back into JSON; ``problems`` holds the one table from errors to status codes, ``routes`` the one table of routes, from
which the application, ``OPTIONS``, ``Allow`` and ``/openapi.json`` are all made.
"""
