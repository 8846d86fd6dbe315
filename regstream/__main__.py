"""``python -m regstream``: the command line."""

from regstream import cli

cli.main()
