"""How much a property test tries: profile ``dev`` 20 examples, ``ci`` 60, ``nightly`` as many as the test asks for.

``HYPOTHESIS_PROFILE`` names one; without it ``ci`` holds where ``CI`` is set and ``dev`` elsewhere.
"""

from __future__ import annotations

import os

import hypothesis

from tests import needs

MOST = {"dev": 20, "ci": 60, "nightly": None}
NAME = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if needs.in_ci() else "dev")
if NAME not in MOST:
    raise SystemExit(f"HYPOTHESIS_PROFILE={NAME}: there is no such profile, write one of {', '.join(MOST)}")


def examples(full: int) -> int:
    """How many of ``full`` examples, steps or rounds the profile in force tries."""
    most = MOST[NAME]
    return full if most is None else min(full, most)


def load() -> None:
    """Put the profile in force for the tests that leave the number to it; an example may take any time.

    ``ci`` tries the same examples in each run, so that what it refuses is a fault of the change.
    """
    for name, most in MOST.items():
        hypothesis.settings.register_profile(
            name,
            max_examples=most or 500,
            deadline=None,
            derandomize=name == "ci",
            print_blob=True,
            # By the time that the machine takes, and by chance where examples are few
            suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
        )
    hypothesis.settings.load_profile(NAME)
