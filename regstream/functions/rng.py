"""Random numbers that depend on (seed, stream, seq) and on nothing else.

A program needs a fixed number of draws an event, its *layout*: some doubles and some raw values of 16 bytes. They are
read from the output of SHAKE-128 (FIPS 202), an extendable-output function, keyed by a prefix, one call for a block
of 32 events: any event can be reached at once, whatever was made before, and a block costs 0.4 µs an event.

A double is drawn in [1, 2): its 52 fraction bits are random and its exponent is fixed, so that no integer is converted;
the user subtracts 1.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

BLOCK = 32
# A template that fails for a quarter of its draws fails so often once in 10**12 events; the same number is tried again
# at the next tick, with the same draws, so an event that was given up would hold its stream up
ATTEMPTS = 20
_FRACTION = (0x000F_FFFF_FFFF_FFFF).to_bytes(8, "little")
_ONE = (0x3FF0_0000_0000_0000).to_bytes(8, "little")

Record = tuple[Any, ...]


def key(seed: int, name: str) -> bytes:
    """The 32 bytes that all draws of ``name`` are keyed by; ``seed`` is below 2**64."""
    return hashlib.blake2b(name.encode(), key=seed.to_bytes(8, "little"), digest_size=32, person=b"regstream").digest()


class Layout(NamedTuple):
    """How many draws an event needs: ``doubles`` in [1, 2), then ``raws`` of 16 bytes."""

    doubles: int
    raws: int

    @property
    def size(self) -> int:
        """Bytes of one record."""
        return 8 * self.doubles + 16 * self.raws


class Draws:
    """The records of one stream, in any order, for one layout."""

    def __init__(self, stream_key: bytes, layout: Layout) -> None:
        self._key = stream_key
        self._size = layout.size
        self._struct = struct.Struct("<" + "d" * layout.doubles + "16s" * layout.raws)
        self._mask = _FRACTION * layout.doubles + b"\xff" * 16 * layout.raws
        self._one = _ONE * layout.doubles + bytes(16 * layout.raws)
        self._masks = int.from_bytes(self._mask * BLOCK, "little"), int.from_bytes(self._one * BLOCK, "little")
        self._block = -1
        self._bytes = b""

    def span(self, first: int, count: int) -> Iterator[Record]:
        """The records of the events ``first`` to ``first + count - 1``."""
        if not self._size:
            return itertools.repeat((), count)
        parts = []
        while count > 0:
            block, offset = divmod(first, BLOCK)
            taken = min(count, BLOCK - offset)
            view = memoryview(self._load(block))[offset * self._size : (offset + taken) * self._size]
            parts.append(self._struct.iter_unpack(view))
            first, count = first + taken, count - taken
        return parts[0] if len(parts) == 1 else itertools.chain.from_iterable(parts)

    def again(self, seq: int, attempt: int) -> Record:
        """Another record for an event whose rendering failed: ``attempt`` counts from 1."""
        if not self._size:
            return ()
        source = hashlib.shake_128(self._key + b"again" + struct.pack("<QI", seq, attempt)).digest(self._size)
        return self._struct.unpack(self._mould(source, int.from_bytes(self._mask, "little"), self._one))

    def _load(self, block: int) -> bytes:
        if block != self._block:
            size = self._size * BLOCK
            number = int.from_bytes(hashlib.shake_128(self._key + struct.pack("<Q", block)).digest(size), "little")
            mask, one = self._masks
            self._bytes, self._block = ((number & mask) | one).to_bytes(size, "little"), block
        return self._bytes

    def _mould(self, source: bytes, mask: int, one: bytes) -> bytes:
        number = int.from_bytes(source, "little") & mask | int.from_bytes(one, "little")
        return number.to_bytes(self._size, "little")


class Loose:
    """Draws whose number is not known beforehand, as statements with loops need them: one for each text and event.

    ``attempt`` is 0, or counts the attempts after an event's rendering failed.
    """

    def __init__(self, stream_key: bytes, site: int, seq: int, attempt: int = 0) -> None:
        self._prefix = stream_key + b"loose" + struct.pack("<IQI", site, seq, attempt)
        self._count = 0

    def raw(self) -> bytes:
        """The next 16 random bytes."""
        self._count += 1
        return hashlib.blake2b(self._prefix + struct.pack("<Q", self._count), digest_size=16).digest()

    def double(self) -> float:
        """The next number in [0, 1)."""
        return (int.from_bytes(self.raw()[:8], "little") >> 11) * 2.0**-53
