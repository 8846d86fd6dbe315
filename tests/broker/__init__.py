"""The parts of the broker room that need no broker."""
