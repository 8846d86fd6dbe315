"""The store: PostgreSQL keeps every event, and gives them back to whoever asks.

``database`` has the connections, ``queries`` all SQL by name, ``migrate`` the schema, ``partitions`` its days.
"""
