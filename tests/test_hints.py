"""What is offered in place of an unknown name does there, and means what was meant."""

from __future__ import annotations

import datetime
import re

import pytest

from regstream import errors, spec
from regstream.functions import faker
from regstream.schedule import cron
from tests.generate import support

AT = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
OFFSETS = {
    "GMT-3": -3, "GMT+3": 3, "UTC-5": -5, "utc+3": 3, "-03:00": -3, "+05": 5, "GMT+14": 14, "Etc/UTC-3": -3,
    "GMT+00:00": 0, "GMT+15": None, "GMT-13": None, "Etc/GMT-15": None, "UTC+5:30": None,
}  # fmt: skip


@pytest.mark.parametrize("name", OFFSETS)
def test_a_zone_that_is_offered_for_an_offset_has_it(name):
    with pytest.raises(errors.BadValue) as caught:
        cron.zone(name)
    hint, hours = cron.zone_hint(name), OFFSETS[name]
    assert str(caught.value).endswith(hint)
    offered = re.findall(r"\b(?:Etc/GMT[+-]\d+|UTC)(?=,)", hint)
    assert [AT.astimezone(cron.zone(one)).utcoffset() for one in offered] == (
        [] if hours is None else [datetime.timedelta(hours=hours)]
    )
    assert "did you mean" not in hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Bogota", "did you mean America/Bogota?"),
        ("America/Sao_Paolo", "did you mean America/Sao_Paulo?"),
        ("Z", "did you mean UTC?"),
        ("EST6", ""),
        ("Etc/GMT-33", ""),
    ],
)
def test_zones_are_offered_where_they_are_meant(name, hint):
    assert cron.zone_hint(name).startswith(hint) and (hint or "mean" not in cron.zone_hint(name))


@pytest.mark.parametrize("name", ["localtime", "posixrules"])
def test_the_zone_of_the_machine_is_none(name):
    with pytest.raises(errors.BadValue):
        cron.zone(name)


@pytest.mark.parametrize("place", ["EU", "XX", "EURO", "LATAM", "BR-XX", "BR-SPP", "US-CAA", "br"])
def test_a_calendar_that_is_offered_is_accepted(place):
    with pytest.raises(errors.BadValue) as caught:
        cron.holidays_of(place)
    said = str(caught.value)
    pattern = next(one.pattern for one in spec.RateSpec.model_fields["calendar"].metadata if hasattr(one, "pattern"))
    offered = re.findall(r"\w+(?= or |\?)", said.partition("did you mean ")[2])
    country = place.partition("-")[0]
    for one in offered:
        full = f"{country}-{one}" if "-" in place else one
        assert re.fullmatch(pattern, full)
        cron.holidays_of(full)
    assert offered or "write an ISO 3166 country such as BR" in said


def test_only_what_is_accepted_is_near():
    known = ["alpha", "alphas", "alphabet", "alpine"]
    assert errors.near("alpha1", known)[0] == "alpha"
    assert errors.near("alpha1", known, accepted=lambda one: one != "alpha")[0] == "alphas"
    assert errors.did_you_mean("alpha1", known, lambda one: False) == ""


@pytest.mark.parametrize("kind", ["dates", "colour", "date_of_birt", "times", "profil"])
def test_a_provider_that_is_offered_can_be_used(kind):
    message = support.fault(f"{{{{ fake('{kind}') }}}}").message
    assert "there is no provider" in message
    for one in re.findall(r"\w+(?= or |\?)", message.partition("did you mean ")[2]):
        assert faker.work(one, "es_MX")


@pytest.mark.parametrize("name", ["todayy", "noww", "strptim", "astimezon", "mins", "isoformatt", "yea"])
def test_a_part_of_a_time_that_is_offered_is_in_reach(name):
    found = support.fault(f"{{{{ now.{name} }}}}")
    for one in re.findall(r"\w+(?= or |\?)", found.hint.partition("did you mean ")[2]):
        assert support.faults({"x": f"{{{{ now.{one} }}}}"}) == []
