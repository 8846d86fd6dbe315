"""Generation: YAML field templates become one compiled batch function a stream.

This room makes events and does nothing else: it never sleeps, publishes or reads a clock, and every random number
that it uses comes from (seed, stream, seq).
"""
