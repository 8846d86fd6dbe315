"""What a day of bad luck does to events: a daemon under load, its Kafka and itself killed again and again.

    python -m scripts.chaos [--short] [--seed N] [--out report.json]

Two acts, each with a daemon of its own: one broker that is killed and restarted while the daemon is too, then three of
which one is stopped in turn. Afterwards three witnesses are compared by (stream, epoch, seq): an independent reader of
the topics, WebSocket clients that reconnected with ``after``, and the daemon's own counters. Nothing here imports
regstream: what it knows of it is its contract.
"""
