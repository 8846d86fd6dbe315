"""When streams are due: schedules as pure functions of time, and one clock that waits for all of them.

The clock says *due* and does no work itself. Times are epoch seconds.
"""

from __future__ import annotations

from regstream.schedule.clock import Clock
from regstream.schedule.rate import Arrivals, Curve
from regstream.schedule.schedule import Schedule

__all__ = ["Arrivals", "Clock", "Curve", "Schedule"]
