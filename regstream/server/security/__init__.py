"""Who may connect and what they may do: origins, connection limits, tokens, and what was rejected."""
