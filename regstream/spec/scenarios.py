"""Scenarios: their steps, each declared once."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Annotated

import pydantic
from pydantic import AliasChoices, Field

from regstream.spec.types import MAX_BATCH, BatchSize, Duration, Fields, Name, Priority, Severity, Spec


class Burst(Spec):
    """Events at once, besides the stream's own ticks."""

    stream: str
    """Which stream."""
    count: Annotated[int, Field(ge=1, le=MAX_BATCH, strict=True)]
    """How many events."""
    fields: Fields | None = None
    """Templates that stand in for the stream's own."""


class Overlay(Spec):
    """What a run changes on a running stream, and gives back."""

    stream: str
    """Which stream."""
    interval: Duration | None = None
    """Time between ticks, taken as said: the profile's speed does not divide it."""
    batch_size: Annotated[BatchSize | None, Field(validation_alias=AliasChoices("batch_size", "batchSize"))] = None
    """Events of one tick."""
    priority: Priority | None = None
    """Who goes first among due ticks."""
    fields: Fields | None = None
    """Templates that stand in for the stream's own."""
    for_: Annotated[Duration | None, Field(validation_alias="for", serialization_alias="for")] = None
    """Given back after this time; left out: at the end of the run."""


class Alert(Spec):
    """A text that people see at once."""

    severity: Severity = Severity.WARNING
    """How bad it is."""
    message: str
    """A template for the text that people read."""


class AlertStep(Spec):
    """Raise an alert."""

    alert: Alert
    """What it says."""


class BurstStep(Spec):
    """Make events at once."""

    burst: Burst
    """Of which stream, and how many."""


class SetStep(Spec):
    """Overlay a running stream; the run goes on at once."""

    set: Overlay
    """What changes, and for how long."""


class WaitStep(Spec):
    """Wait."""

    wait: Duration
    """How long; never divided by the profile's speed."""


class PauseStep(Spec):
    """Pause a stream until it is resumed or the run ends."""

    pause: str
    """Which stream."""


class ResumeStep(Spec):
    """Let a stream run, until the run ends."""

    resume: str
    """Which stream."""


class ParallelStep(Spec):
    """Go through several lists of steps at the same time, and on when all have ended."""

    parallel: Annotated[tuple[tuple[Step, ...], ...], Field(min_length=1, max_length=50)]
    """The lists."""


class Repeat(Spec):
    """Steps, and how often."""

    times: Annotated[int, Field(ge=1, le=10_000, strict=True)]
    """How often."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=500)]
    """What is repeated."""


class RepeatStep(Spec):
    """Go through steps several times."""

    repeat: Repeat
    """What, and how often."""


STEP_KINDS: dict[str, type[Spec]] = {
    "alert": AlertStep,
    "burst": BurstStep,
    "set": SetStep,
    "wait": WaitStep,
    "parallel": ParallelStep,
    "repeat": RepeatStep,
    "pause": PauseStep,
    "resume": ResumeStep,
}


def _step_kind(value: object) -> str | None:
    if isinstance(value, Mapping):
        kinds = [key for key in value if key in STEP_KINDS]
        return kinds[0] if kinds else None
    return next((kind for kind, spec in STEP_KINDS.items() if isinstance(value, spec)), None)


Step = Annotated[
    Annotated[AlertStep, pydantic.Tag("alert")]
    | Annotated[BurstStep, pydantic.Tag("burst")]
    | Annotated[SetStep, pydantic.Tag("set")]
    | Annotated[WaitStep, pydantic.Tag("wait")]
    | Annotated[ParallelStep, pydantic.Tag("parallel")]
    | Annotated[RepeatStep, pydantic.Tag("repeat")]
    | Annotated[PauseStep, pydantic.Tag("pause")]
    | Annotated[ResumeStep, pydantic.Tag("resume")],
    pydantic.Discriminator(
        _step_kind, custom_error_type="step", custom_error_message="a step has one key of " + " ".join(STEP_KINDS)
    ),
]
ParallelStep.model_rebuild()
Repeat.model_rebuild()
RepeatStep.model_rebuild()


KeptField = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}\.[A-Za-z][A-Za-z0-9_]{0,63}$")]
"""A field of an entity: ``svp.spent``."""


class ScenarioSpec(Spec):
    """An ordered list of steps."""

    name: Name
    """What it is started by."""
    description: str = ""
    """What it shows, for people."""
    keeps: Annotated[tuple[KeptField, ...], Field(max_length=500)] = ()
    """Fields of entity rows, ``ENTITY.FIELD``, that stay as its events change them: all others are given back."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=500)]
    """What happens, in order."""

    @property
    def kept(self) -> tuple[tuple[str, str], ...]:
        """What it ``keeps``, as entity and field."""
        return tuple((entity, field) for entity, _, field in (one.partition(".") for one in self.keeps))


def walk(steps: tuple[typing.Any, ...]) -> Iterator[typing.Any]:
    """All steps of a list, depth first, those within ``parallel`` and ``repeat`` included."""
    for step in steps:
        yield step
        if isinstance(step, ParallelStep):
            for branch in step.parallel:
                yield from walk(branch)
        elif isinstance(step, RepeatStep):
            yield from walk(step.repeat.steps)
