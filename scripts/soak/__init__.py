"""Ten minutes of clients that come and go, at 1,000 events a second.

    python -m scripts.soak [--short] [--seconds N] [--seed N] [--out report.json]

One daemon in simulation, and on each of its transports clients that stay and clients that leave at random, in the ways
in which clients leave, and come back with ``after``. Each judges what it is shown by (stream, epoch, seq); at the end
the daemon says where its streams stand, and its memory is compared with what it was. Nothing here imports regstream:
what it knows of it is its contract.
"""
