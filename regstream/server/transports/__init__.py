"""The ways to a subscriber: WebSocket, Server-Sent Events and Socket.IO, and what they have in common."""
