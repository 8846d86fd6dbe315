"""regstream: live data that behaves like a bank's, from YAML to a dashboard, in one process."""

__version__ = "0.1.0"
