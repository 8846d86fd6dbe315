"""The spool: an outbox on disk for events that wait for a broker.

Every event is appended before it is sent, and acknowledged when the broker has it. Whatever a daemon did not
acknowledge is there when the next one opens the folder, in order; so a daemon that is killed loses nothing that it had
appended.

- ``append`` gives each event a *mark*, a number that rises by one from event to event for the whole life of the folder.
  ``acknowledge(mark)`` says that everything up to that mark is done with.
- Nothing is flushed to the disk itself before ``close``: what was appended survives the death of the process (SIGKILL
  too), not that of the machine.
- Bounded: the files take at most ``limit`` bytes. To make room, the events of the lowest priority go first, and among
  those the oldest; new ones that are less urgent than all that wait are refused. A whole file goes at a time, about a
  sixteenth of ``limit``, or of the room that the disk has when the file is begun, or less.
- A disk without room (or a quota that is used up) loses no event while a less urgent one waits: those go as above. New
  ones are refused when none is less urgent.
- What goes is returned by the call that caused it, and counted; events that the caller holds in memory (``hold``) are
  lost only if it lets go of them before they are acknowledged, and are returned and counted then.
- A disk that is full or broken is a state (``status.error``), never an exception from ``append``, ``acknowledge`` or
  ``read``; the events concerned are returned as lost.

Files: one for each priority at a time (``3-….spool`` holds events of priority LOW), so that making room is deleting
files; ``acknowledged`` holds a mark, ``positions`` where streams stood in files that are deleted, ``lock`` the process
that has the folder. All calls are for one thread and none waits for anything but the disk.
"""

from __future__ import annotations

from regstream.broker.spool.spool import LEAST, LIMIT, WORTH_DELETING, Appended, Chunk, Loss, Spool, SpoolStatus

__all__ = [
    "LEAST",
    "LIMIT",
    "WORTH_DELETING",
    "Appended",
    "Chunk",
    "Loss",
    "Spool",
    "SpoolStatus",
]
