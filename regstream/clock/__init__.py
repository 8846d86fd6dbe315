"""When streams are due: schedules as pure functions of time, and one clock that waits for all of them.

The clock says *due* and does no work itself. Times are epoch seconds.
"""

from __future__ import annotations

from regstream.clock.curve import Curve
from regstream.clock.rate import Arrivals
from regstream.clock.schedule import Schedule
from regstream.clock.waking import Clock

__all__ = ["Arrivals", "Clock", "Curve", "Schedule"]
