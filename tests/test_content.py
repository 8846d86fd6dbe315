"""The shipped files: they load, keep the contract's names, and their events make sense on their own and joined."""

from __future__ import annotations

import collections
import functools
from typing import Any

import orjson
import pytest

from regstream import config, spec
from regstream.generator import stream as generated
from tests.support import ROOT

NOW = 1_795_435_200.0
STREAMS = {
    "BUDGET_UPDATES": ("budget-update", "reginsight.budget"),
    "PROJECT_UPDATES": ("project-status-update", "reginsight.projects"),
    "COMPLIANCE_ALERTS": ("compliance-alert", "reginsight.compliance"),
    "TRANSACTION_STREAM": ("transaction-update", "reginsight.transactions"),
    "RISK_EVENTS": ("risk-event", "reginsight.risk"),
    "SYSTEM_METRICS": ("production-metrics", "reginsight.metrics"),
}
SCENARIOS = {"BUDGET_CRISIS", "PROJECT_DEADLINE", "COMPLIANCE_AUDIT", "MARKET_VOLATILITY", "SYSTEM_OUTAGE"}
# The least and most that one payment may be: a few US cents and 1.5 million dollars, in each currency
BOUNDS = {
    "MXN": (0.5, 28_500_000),
    "BRL": (0.15, 8_400_000),
    "ARS": (40, 2_220_000_000),
    "CLP": (20, 1_460_000_000),
    "COP": (100, 5_970_000_000),
    "PEN": (0.1, 5_300_000),
}
# What half of the payments of a currency lie around: a lunch to a month's rent
MEDIANS = {
    "MXN": (500, 6_000),
    "BRL": (150, 2_000),
    "ARS": (40_000, 500_000),
    "CLP": (25_000, 300_000),
    "COP": (100_000, 1_300_000),
    "PEN": (90, 1_200),
}

Row = dict[str, Any]


@functools.cache
def load(env: str = "development") -> spec.Catalog:
    return config.load(ROOT / "streams.yaml", ROOT / "scenarios", ROOT / "templates", env)


class Bank:
    """The shipped streams, made without a daemon."""

    def __init__(self, env: str = "development") -> None:
        self.catalog = load(env)
        workshop = generated.GenerationContext(
            self.catalog, self.catalog.seed or 0, generated.Identity("/test", "LATAM")
        )
        workshop.fill(NOW)
        self.rows = workshop.pools
        self.streams = {
            name: generated.Stream(declaration, workshop, "E")
            for name, declaration in self.catalog.streams.items()
            if name != spec.ALERTS
        }
        self.raised: collections.Counter[str] = collections.Counter()

    def make(self, name: str, count: int, fields: dict[str, Any] | None = None, now: float = NOW) -> list[Row]:
        batch = self.streams[name].next_batch(now, count, fields)
        assert batch.error is None
        self.raised[name] += len(batch.signals)
        return [orjson.loads(event.value)["data"] for event in batch.events]

    def passed(self, name: str, now: float) -> list[Row]:
        """What a stream that follows has to tell since it was asked last."""
        one = self.streams[name]
        batch = one.next_ticks(one.ticks([(now, 1, None)]))
        assert batch.error is None
        self.raised[name] += len(batch.signals)
        return [orjson.loads(event.value)["data"] for event in batch.events]

    def ids(self, entity: str) -> dict[str, Row]:
        return {row["id"]: row for row in self.rows[entity]}


@pytest.fixture(scope="module")
def history() -> tuple[Bank, dict[str, list[Row]]]:
    """2,000 events of each stream, as the daemon would mix them."""
    bank = Bank()
    made: dict[str, list[Row]] = {name: [] for name in bank.streams}
    for turn in range(100):
        for name, events in made.items():
            events += bank.make(name, 20, now=NOW + turn * 60)
    return bank, made


def test_streams_and_scenarios_have_the_names_of_the_contract() -> None:
    catalog = load()
    declared = {
        name: (declaration.event, declaration.topic)
        for name, declaration in catalog.streams.items()
        if name != spec.ALERTS
    }
    assert declared == STREAMS
    assert set(catalog.scenarios) == SCENARIOS
    assert {path.stem for path in (ROOT / "scenarios").iterdir()} == {
        name.lower().replace("_", "-") for name in SCENARIOS
    }
    assert catalog.seed == 42
    assert all(spec.description and spec.enabled and spec.key for spec in catalog.streams.values() if spec.fields)


@pytest.mark.parametrize("env", ["development", "test", "production"])
def test_every_profile_loads(env: str) -> None:
    profile = load(env).profile
    assert profile.speed == {"development": 20, "test": 100, "production": 1}[env]
    large = {"partitions": 6, "replication": 3, "batch_bytes": 524_288}
    small = {"batch_bytes": 65_536} if env == "development" else {}
    assert profile.kafka == spec.KafkaProfile(**(large if env == "production" else small))


def test_in_development_every_stream_speaks_within_thirty_seconds() -> None:
    catalog = load()
    waits = [(spec.interval or 0) / catalog.profile.speed / 1000 for spec in catalog.streams.values() if spec.fields]
    assert max(waits) <= 30
    assert min(waits) <= 2


def test_references_lead_to_rows_that_belong_together(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    bank, made = history
    svp, project, center = bank.ids("svp"), bank.ids("project"), bank.ids("cost_center")
    filing, regulator = bank.ids("filing"), bank.ids("regulator")
    for event in (event for events in made.values() for event in events):
        if "svpId" in event:
            assert svp[event["svpId"]]["country"] == event["country"]
        if "costCenterId" in event:
            assert center[event["costCenterId"]]["country"] == event["country"]
            assert center[event["costCenterId"]]["svpId"] == event["svpId"]
        if "regulator" in event:
            assert regulator[event["regulator"]]["country"] == event["country"]
        if "projectId" in event:
            assert project[event["projectId"]]["svpId"] == event["svpId"]
            assert project[event["projectId"]]["regulator"] == event["regulator"]
        if "filingId" in event:
            assert filing[event["filingId"]]["regulator"] == event["regulator"]


def test_every_row_is_used(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    bank, made = history
    seen = {
        key: {event[key] for events in made.values() for event in events if key in event}
        for key in [*KEYS.values(), "filingId"]
    }
    assert {entity: set(bank.ids(entity)) for entity in KEYS} == {entity: seen[key] for entity, key in KEYS.items()}
    # Of filings those of which something is to be mended
    assert {row["filingId"] for row in bank.rows["finding"]} <= seen["filingId"] <= set(bank.ids("filing"))


KEYS = {
    "svp": "svpId",
    "cost_center": "costCenterId",
    "regulator": "regulator",
    "project": "projectId",
    "node": "nodeId",
}


def test_every_regulator_has_six_filings_of_its_own() -> None:
    rows = Bank().rows
    by_regulator = collections.Counter(row["regulator"] for row in rows["filing"])
    assert by_regulator == {row["id"]: 6 for row in rows["regulator"]}
    for row in rows["filing"]:
        assert row["id"] == f"{row['regulator']}-{row['code']}"
        assert row["periodicity"] in {"DAILY", "WEEKLY", "MONTHLY", "QUARTERLY", "SEMIANNUAL"}


def test_budgets_add_up(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    bank, made = history
    spent = {row["id"]: row["spent"] for row in Bank().rows["svp"]}
    for event in made["BUDGET_UPDATES"]:
        assert event["remaining"] == pytest.approx(event["allocated"] - event["spent"], abs=0.01)
        assert event["utilization"] == pytest.approx(event["spent"] / event["allocated"] * 100, abs=0.06)
        assert event["amount"] == pytest.approx(event["spent"] - spent[event["svpId"]], abs=0.02)
        assert (event["category"] == "PERIOD_CLOSE") == (event["amount"] < 0)
        spent[event["svpId"]] = event["spent"]
    assert {row["id"]: row["reported"] for row in bank.rows["svp"]} == spent


def test_projects_move_on(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    last: dict[str, Row] = {}
    for event in history[1]["PROJECT_UPDATES"]:
        before = last.get(event["projectId"], event)
        assert 0 <= event["progress"] <= 100
        assert 0 <= event["riskScore"] <= 100
        assert event["budgetUtilization"] == pytest.approx(event["spent"] / event["budget"] * 100, abs=0.06)
        if event["progress"] < before["progress"]:
            assert (before["progress"], event["release"]) == (100, before["release"] + 1)
        else:
            assert event["release"] == before["release"]
        assert (event["status"] == "COMPLETED") == (event["progress"] == 100)
        last[event["projectId"]] = event


def test_alerts_of_compliance_follow_from_the_deadline(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    for event in history[1]["COMPLIANCE_ALERTS"]:
        late = event["daysToDeadline"] < 0
        assert late == (event["kind"] == "LATE_FILING") == (event["severity"] == "CRITICAL")
        assert (event["potentialFineUsd"] > 0) == (event["severity"] in {"CRITICAL", "HIGH"})
        assert 0 <= event["openFindings"] <= 12
        assert event["detail"].startswith(f"{event['regulator']} {event['filingCode']} {event['filingName']}: due ")


def test_amounts_fit_their_currency(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    bank, made = history
    amounts = collections.defaultdict(list)
    centers = bank.ids("cost_center")
    for event in made["TRANSACTION_STREAM"]:
        center = centers[event["costCenterId"]]
        assert event["currency"] == center["currency"]
        assert event["channel"] in center["channels"]
        assert event["segment"] in center["segments"]
        assert event["amountUsd"] == pytest.approx(event["amount"] / event["usdRate"], abs=0.006)
        low, high = BOUNDS[event["currency"]]
        assert low <= event["amount"] <= high
        amounts[event["currency"]].append(event["amount"])
    assert all(amount == int(amount) for amount in amounts["CLP"])
    for currency, (low, high) in MEDIANS.items():
        assert low <= sorted(amounts[currency])[len(amounts[currency]) // 2] <= high


def test_payments_of_high_risk_are_held_and_reported_as_the_country_says() -> None:
    bank = Bank()
    reports = {"MX": "ROI", "BR": "COS", "AR": "ROS", "CL": "ROS", "CO": "ROS", "PE": "ROS"}
    for event in bank.make("TRANSACTION_STREAM", 6_000):
        held = event["riskScore"] >= 80
        assert held == (event["status"] == "HELD") == (event["suspicion"] is not None)
        if held:
            assert event["suspicion"]["report"] == reports[event["country"]]


def test_risks_are_scored_by_the_matrix(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    for event in history[1]["RISK_EVENTS"]:
        score = event["likelihood"] * event["impact"]
        assert event["score"] == score
        assert event["severity"] == (
            "CRITICAL" if score >= 20 else "HIGH" if score >= 12 else "MEDIUM" if score >= 6 else "LOW"
        )
        assert event["varUsage"] == pytest.approx(event["varUsd"] / event["varLimitUsd"] * 100, abs=0.06)
        assert ("VAR_LIMIT" in event["breaches"]) == (event["varUsd"] > event["varLimitUsd"])
        assert ("LCR" in event["breaches"]) == (event["lcr"] < 100)
        assert 8 < event["capitalRatio"] < 35
        assert 0.3 <= event["nplRatio"] < 8


def test_metrics_agree_with_each_other(history: tuple[Bank, dict[str, list[Row]]]) -> None:
    for event in history[1]["SYSTEM_METRICS"]:
        assert 0 <= event["cpuPercent"] <= 100
        assert 0 <= event["memoryPercent"] <= 100
        assert event["latencyP50Ms"] <= event["latencyP95Ms"] <= event["latencyP99Ms"]
        assert event["filingsValidated"] + event["filingsRejected"] == event["filingsReceived"]
        assert event["validationRate"] == pytest.approx(
            event["filingsValidated"] / event["filingsReceived"] * 100, abs=0.06
        )
        assert event["kafka"]["inPerSecond"] > 0


DAYS = 110


@pytest.fixture(scope="module")
def quarter() -> tuple[Bank, dict[str, list[Row]]]:
    """More than a quarter, looked at every hour; each event has the ``day`` since the beginning besides its data."""
    bank = Bank("production")
    made: dict[str, list[Row]] = {name: [] for name in bank.streams}
    counts = {"TRANSACTION_STREAM": 60, "SYSTEM_METRICS": 10}
    for hour in range(24 * DAYS):
        for name, events in made.items():
            now = NOW + hour * 3600
            follows = bank.streams[name].spec.follow is not None
            fresh = bank.passed(name, now) if follows else bank.make(name, counts.get(name, 6), now=now)
            events += [{**one, "day": hour / 24} for one in fresh]
    return bank, made


@pytest.mark.slow
def test_what_the_bank_pays_is_what_its_budgets_lose(quarter: tuple[Bank, dict[str, list[Row]]]) -> None:
    """Every cent of a report is in the payments since the report before."""
    made = quarter[1]
    paid: collections.Counter[str] = collections.Counter()
    reported = {row["id"]: row["spent"] for row in Bank().rows["svp"]}
    stream = sorted(
        [*made["TRANSACTION_STREAM"], *made["BUDGET_UPDATES"]], key=lambda one: (one["day"], "allocated" not in one)
    )
    # In an hour budgets are told first, as the streams are made in that order
    closed = 0
    for event in stream:
        name = event["svpId"]
        if "allocated" not in event:
            if event["purpose"] != "CUSTOMER" and event["status"] == "COMPLETED":
                assert event["direction"] == "OUT"
                paid[name] += event["amountUsd"]
        elif event["category"] == "PERIOD_CLOSE":
            closed += 1
            # Nothing is left of the old quarter; what was paid in the new one before this report is in it
            assert event["utilization"] < 5
            reported[name], paid[name] = event["spent"], 0
        else:
            assert event["spent"] == pytest.approx(reported[name] + paid[name], abs=0.05)
            reported[name], paid[name] = event["spent"], 0
    assert closed == 12


@pytest.mark.slow
def test_a_quarter_uses_up_its_budget_and_no_more(quarter: tuple[Bank, dict[str, list[Row]]]) -> None:
    reports = quarter[1]["BUDGET_UPDATES"]
    assert all(0 <= one["utilization"] <= 112 for one in reports)
    # The tests begin on 23 November, so the quarter ends on day 38
    ends = [one["utilization"] for one in reports if 37 < one["day"] < 38]
    begins = [one["utilization"] for one in reports if 40 < one["day"] < 41]
    middle = [one["utilization"] for one in reports if 82 < one["day"] < 84]
    assert 85 < sum(ends) / len(ends) < 103 and max(begins) < 8
    assert 40 < sum(middle) / len(middle) < 56
    categories = collections.Counter(one["category"] for one in reports)
    assert len(categories) == 8 and categories["PAYROLL"] == max(categories.values())


@pytest.mark.slow
def test_deadlines_come_nearer_and_pass(quarter: tuple[Bank, dict[str, list[Row]]]) -> None:
    """A finding has one deadline and one way to go; some are late, most are not."""
    order = ["OPEN", "IN_REVIEW", "ESCALATED", "RESOLVED"]
    lives: dict[str, list[Row]] = collections.defaultdict(list)
    for event in quarter[1]["COMPLIANCE_ALERTS"]:
        lives[event["findingId"]].append(event)
    assert len(lives) > 20_000
    whole = [
        states for states in lives.values() if states[0]["status"] == "OPEN" and states[-1]["status"] == "RESOLVED"
    ]
    assert len(whole) > 0.9 * len(lives)
    for states in lives.values():
        places = [order.index(one["status"]) for one in states]
        assert places == sorted(set(places))
        assert len({one["deadline"] for one in states if one["status"] != "RESOLVED"}) <= 1
    late = [one for one in quarter[1]["COMPLIANCE_ALERTS"] if one["kind"] == "LATE_FILING"]
    assert 0.01 < len(late) / len(quarter[1]["COMPLIANCE_ALERTS"]) < 0.1
    assert {one["status"] for one in quarter[1]["COMPLIANCE_ALERTS"]} == set(order)


@pytest.mark.slow
def test_projects_slip_for_a_reason(quarter: tuple[Bank, dict[str, list[Row]]]) -> None:
    last: dict[str, Row] = {}
    slipped = 0
    for event in quarter[1]["PROJECT_UPDATES"]:
        before = last.get(event["projectId"])
        if before is not None and before["release"] == event["release"]:
            passed = int(NOW / 86_400 + event["day"]) - int(NOW / 86_400 + before["day"])
            further = event["delayDays"] - before["delayDays"]
            assert event["daysToDeadline"] == before["daysToDeadline"] - passed + further
            slipped += further
            if further:
                assert event["blocker"]
            if event["blocker"]:
                assert event["progress"] == before["progress"] and event["status"] in {"AT_RISK", "DELAYED"}
        last[event["projectId"]] = event
    assert slipped > 50
    statuses = collections.Counter(one["status"] for one in quarter[1]["PROJECT_UPDATES"])
    assert statuses["ON_TRACK"] > statuses["AT_RISK"] > statuses["DELAYED"] / 2 > 0
    assert max(one["release"] for one in last.values()) > 1


@pytest.mark.slow
def test_alerts_are_rare_and_do_occur(quarter: tuple[Bank, dict[str, list[Row]]]) -> None:
    bank, made = quarter
    rates = {name: bank.raised[name] / len(made[name]) for name in bank.streams}
    assert max(rates.values()) < 0.05
    assert all(rates[name] > 0 for name in rates if name != "SYSTEM_METRICS")


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_scenario_touches_three_streams_and_takes_half_a_minute(name: str) -> None:
    declaration = load().scenarios[name]
    steps = list(spec.walk(declaration.steps))
    touched = {step.burst.stream for step in steps if isinstance(step, spec.BurstStep)}
    touched |= {step.set.stream for step in steps if isinstance(step, spec.SetStep)}
    assert len(touched) >= 3
    assert 20_000 <= duration(declaration.steps) <= 60_000
    assert sum(isinstance(step, spec.AlertStep) for step in steps) >= 3


def duration(steps: tuple[Any, ...]) -> int:
    """Milliseconds that the waits of ``steps`` take."""
    total = 0
    for step in steps:
        if isinstance(step, spec.WaitStep):
            total += step.wait
        elif isinstance(step, spec.RepeatStep):
            total += step.repeat.times * duration(step.repeat.steps)
        elif isinstance(step, spec.ParallelStep):
            total += max(duration(branch) for branch in step.parallel)
    return total


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_what_a_scenario_overlays_is_declared_and_renders(name: str) -> None:
    bank = Bank()
    for step in spec.walk(bank.catalog.scenarios[name].steps):
        overlay = getattr(step, "burst", None) or getattr(step, "set", None)
        if overlay is not None:
            assert set(overlay.fields or {}) <= set(bank.catalog.streams[overlay.stream].fields or {})
            assert len(bank.make(overlay.stream, 50, overlay.fields)) == 50


def test_a_budget_crisis_raises_alerts() -> None:
    bank = Bank()
    bursts = [
        step.burst
        for step in spec.walk(bank.catalog.scenarios["BUDGET_CRISIS"].steps)
        if isinstance(step, spec.BurstStep) and step.burst.stream == "BUDGET_UPDATES"
    ]
    bank.make("BUDGET_UPDATES", bursts[0].count, bursts[0].fields)
    assert bank.raised["BUDGET_UPDATES"] == bursts[0].count
    calm = bank.make("BUDGET_UPDATES", bursts[-1].count, bursts[-1].fields)
    assert all(event["utilization"] < 51 for event in calm)
