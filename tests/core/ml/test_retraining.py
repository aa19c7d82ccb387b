"""The rule for retrains: asked a thousand times, under a clock that the test moves, with nothing remembered."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from signals_core.ml.monitoring import DriftReport, DriftStore
from signals_core.ml.retraining import Alarm, Decision, Retrain, State, Symptoms, alarms_of, decide
from signals_core.settings import RetrainingSettings

NEW_YORK = ZoneInfo("America/New_York")
START = datetime(2026, 3, 2, 18, 45, tzinfo=NEW_YORK)
"""A Monday, after the close; the clocks change on 8 March."""
LIMITS = RetrainingSettings()


def drift(since: date, version: str = "v1", cause: str = "drift") -> Alarm:
    return Alarm(cause, f"{version}:{since}", since, "14 of 55 features drift")  # type: ignore[arg-type]


def healthy(day: date) -> Symptoms:
    return Symptoms("UNIVERSE", day, (), (), "no feature drifts", "v1", day)


def drifting(day: date, since: date | None = None, *causes: str) -> Symptoms:
    since = since or START.date()
    return replace(healthy(day), alarms=tuple(drift(since, cause=cause) for cause in causes or ("drift",)))


@dataclass
class World:
    """Runs as Dagster keeps them: a request becomes one unless its key was used before."""

    limits: RetrainingSettings = LIMITS
    history: list[Retrain] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    outcome: State = "succeeded"

    def tick(self, symptoms: Symptoms, now: datetime) -> Decision:
        decision = decide(symptoms, self.history, now, self.limits, staleness_days=14)
        if decision.cause is not None:
            assert decision.run_key not in self.keys, "a key that was used before would be dropped without a word"
            self.keys.add(decision.run_key)
            name = f"run{len(self.history):05}"
            self.history.append(Retrain(name, now, decision.reason, self.outcome, symptoms.scope))
        return decision

    def moments(self) -> list[datetime]:
        return [r.requested_at for r in self.history]


def gaps(moments: Sequence[datetime]) -> list[timedelta]:
    ordered = sorted(moments)
    return [later - earlier for earlier, later in itertools.pairwise(ordered)]


def ticks(number: int, every: timedelta) -> list[datetime]:
    begin = START.astimezone(UTC)
    return [(begin + n * every).astimezone(NEW_YORK) for n in range(number)]


@pytest.mark.parametrize("every", [timedelta(minutes=5), timedelta(minutes=61), timedelta(hours=7), timedelta(days=1)])
@pytest.mark.parametrize("cooldown", [1, 7, 20])
def test_a_thousand_ticks_under_lasting_drift_are_one_retrain_a_cooldown(every: timedelta, cooldown: int):
    world = World(RetrainingSettings(cooldown_days=cooldown, max_per_month=31))
    for now in ticks(1000, every):
        world.tick(drifting(now.date()), now)
    expected: list[datetime] = []
    for now in ticks(1000, every):
        if not expected or (now.astimezone(UTC) - expected[-1].astimezone(UTC)) >= timedelta(days=cooldown):
            expected.append(now)
    assert world.moments() == expected, "at the first tick after each cool-down, and at no other"


def test_with_the_defaults_a_year_of_drift_asks_each_week_up_to_the_month_s_limit():
    world = World()
    for now in ticks(365 * 24, timedelta(hours=1)):
        world.tick(drifting(now.date()), now)
    moments = [m.astimezone(UTC) for m in world.moments()]
    assert max(sum(m <= other < m + timedelta(days=30) for other in moments) for m in moments) == 4
    assert [(m - moments[0]).days for m in moments[:6]] == [0, 7, 14, 21, 30, 37]


def test_all_causes_at_once_share_the_cooldown_and_the_worst_speaks():
    world = World()
    for now in ticks(1000, timedelta(minutes=10)):
        symptoms = replace(drifting(now.date(), START.date(), "drift", "performance"), trained=date(2026, 1, 1))
        world.tick(symptoms, now)
    assert len(world.history) == 1
    assert world.history[0].cause.startswith("performance: UNIVERSE since 2026-03-02: ")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_alarm_the_clock_and_the_runs_do_the_limits_hold(seed: int):
    """A random walk of alarms and outcomes, with the clock set back at times by up to five days."""
    random = np.random.default_rng(seed)
    limits = RetrainingSettings(cooldown_days=3, max_per_month=5, failure_retries=1, failure_wait_hours=2)
    world, now, alarm_since = World(limits), START, None
    for _ in range(1000):
        now += timedelta(hours=float(random.uniform(0.1, 6)))
        if random.random() < 0.01:
            now -= timedelta(days=float(random.uniform(0, 5)))
        if random.random() < 0.05:
            alarm_since = None if alarm_since else now.date()
        world.outcome = "failed" if random.random() < 0.3 else "succeeded"
        symptoms = drifting(now.date(), alarm_since) if alarm_since else healthy(now.date())
        world.keys.clear()  # an alarm may begin twice on one day of a clock set back
        world.tick(symptoms, now)
    asked = [r for r in world.history if not r.is_retry]
    assert len(asked) > 3
    assert all(gap >= timedelta(days=3) for gap in gaps([r.requested_at for r in asked]))
    for run in world.history:
        within = [r for r in world.history if timedelta(0) <= run.requested_at - r.requested_at < timedelta(days=30)]
        assert len(within) <= 5


def test_the_clock_a_day_back_asks_for_nothing_and_a_clock_years_ahead_blocks_nothing():
    world = World()
    world.tick(drifting(START.date()), START)
    back = START - timedelta(days=1)
    assert world.tick(drifting(back.date(), back.date()), back).cause is None
    ahead = [Retrain("future", START + timedelta(days=900), "drift: x", "succeeded")]
    assert decide(drifting(START.date()), ahead, START, LIMITS, 14).cause == "drift"


def test_an_alarm_that_comes_and_goes_asks_no_more_often_than_one_that_stays():
    world = World()
    for now in ticks(1000, timedelta(hours=1)):
        odd = now.toordinal() % 2 == 0
        world.tick(drifting(now.date(), now.date()) if odd else healthy(now.date()), now)
    assert all(gap >= timedelta(days=7) - timedelta(hours=1) for gap in gaps(world.moments()))
    assert len(world.history) <= 1 + 1000 // (7 * 24)


def test_a_new_alarm_is_not_kept_waiting_by_the_weekly_schedule_and_an_old_one_was_answered_by_it():
    sunday = Retrain("weekly", datetime(2026, 3, 1, 2, 0, tzinfo=NEW_YORK), "schedule", "succeeded")
    now = START + timedelta(days=1)
    assert decide(drifting(now.date()), [sunday], now, LIMITS, 14).cause == "drift", "began after the retrain"
    before = drifting(now.date(), since=date(2026, 2, 26))
    answered = decide(before, [sunday], now, LIMITS, 14)
    assert answered.cause is None
    assert "drift: retrained on 2026-03-01; cool-down of 7 days" in answered.reason
    later = datetime(2026, 3, 9, 18, 45, tzinfo=NEW_YORK)
    assert decide(replace(before, day=later.date()), [sunday], later, LIMITS, 14).cause == "drift", "it persists"


def test_a_report_from_before_the_retrain_is_no_evidence_after_it():
    friday = drifting(date(2026, 2, 27), since=date(2026, 2, 27))
    sunday = Retrain("weekly", datetime(2026, 3, 1, 2, 0, tzinfo=NEW_YORK), "a person", "succeeded")
    decision = decide(friday, [sunday], datetime(2026, 3, 1, 2, 30, tzinfo=NEW_YORK), LIMITS, 14)
    assert decision.cause is None
    assert "drift: retrained on 2026-03-01; no report since" in decision.reason


def test_an_old_report_asks_for_nothing():
    decision = decide(drifting(date(2026, 2, 20), date(2026, 2, 20)), [], START, LIMITS, 14)
    assert decision.cause is None
    assert "the last drift report is of 2026-02-20: does the daily job run?" in decision.reason


def test_a_feed_fault_stops_drift_and_performance_and_says_so():
    broken = replace(drifting(START.date(), START.date(), "drift", "performance"), feed_faults=("roc_5 is constant",))
    decision = decide(broken, [], START, LIMITS, 14)
    assert decision.cause is None
    assert "feed fault, no retrain on broken data: roc_5 is constant" in decision.reason
    assert decide(replace(broken, trained=date(2026, 1, 1)), [], START, LIMITS, 14).cause == "staleness"


@pytest.mark.parametrize("scope", [None, "UNIVERSE"])
def test_one_retrain_of_a_scope_is_in_flight(scope: str | None):
    running = Retrain("r", START - timedelta(days=20), "a person", "in_flight", scope)
    decision = decide(drifting(START.date()), [running], START, LIMITS, 14)
    assert (decision.cause, decision.reason) == (None, "a retrain is in flight (a person)")
    assert decide(drifting(START.date()), [replace(running, scope="AAA")], START, LIMITS, 14).cause == "drift"
    assert decide(drifting(START.date()), [replace(running, state="abandoned")], START, LIMITS, 14).cause == "drift"


def test_a_model_is_stale_the_day_after_the_limit():
    symptoms = Symptoms("UNIVERSE", newest="v1", trained=date(2026, 2, 16))
    assert decide(symptoms, [], START, LIMITS, 14).cause is None
    decision = decide(symptoms, [], START + timedelta(days=1), LIMITS, 14)
    assert decision.reason == "staleness: UNIVERSE since 2026-03-03: last trained 15 days ago, the limit is 14"
    assert decide(Symptoms("UNIVERSE"), [], START, LIMITS, 14).cause is None, "the first training is a person's"


def test_a_retrain_that_fails_is_tried_again_with_growing_waits_and_then_given_up():
    world = World(outcome="failed")
    first = Retrain("weekly-run-1", START, "schedule", "failed")
    world.history.append(first)
    for now in ticks(1000, timedelta(minutes=5)):
        decision = world.tick(healthy(now.date()), now)
    waited = [(m - START).total_seconds() / 3600 for m in world.moments()]
    assert waited == [0, 1, 3]
    assert [r.cause for r in world.history[1:]] == [
        "failure: UNIVERSE: run weekly-r (schedule) failed, retry 1",
        "failure: UNIVERSE: run weekly-r (schedule) failed, retry 2",
    ]
    assert decision.exhausted == "the retrain of 2026-03-02 18:45 failed, and 2 retries with it"


def test_after_a_retry_that_works_there_is_no_more():
    world = World(history=[Retrain("weekly", START, "schedule", "failed")])
    for now in ticks(1000, timedelta(minutes=5)):
        assert world.tick(healthy(now.date()), now).exhausted is None
    assert len(world.history) == 2


def test_the_next_failure_has_retries_of_its_own_and_a_cancelled_run_none():
    world = World(outcome="failed", history=[Retrain("w1", START, "schedule", "failed")])
    for week in range(2):
        for now in ticks(100, timedelta(hours=1)):
            world.tick(healthy(now.date()), now + timedelta(days=7 * week))
        world.history.append(Retrain(f"w{week + 2}", START + timedelta(days=7 * (week + 1)), "schedule", "failed"))
    assert [r.cause.partition(":")[0] for r in world.history] == ["schedule", "failure", "failure"] * 2 + ["schedule"]
    cancelled = [Retrain("w", START, "schedule", "cancelled")]
    assert decide(healthy(START.date()), cancelled, START + timedelta(hours=5), LIMITS, 14).cause is None


def test_the_limit_of_a_month_is_said():
    past = [Retrain(f"r{n}", START - timedelta(days=8 + 6 * n), "drift: x", "succeeded") for n in range(4)]
    decision = decide(drifting(START.date()), past, START, RetrainingSettings(cooldown_days=1), 14)
    assert decision.cause is None
    assert decision.exhausted is not None
    assert decision.exhausted.startswith("4 retrains in 30 days (retraining.max_per_month); drift: UNIVERSE since")
    none = decide(drifting(START.date()), [], START, RetrainingSettings(max_per_month=0), 14)
    assert none.cause is None


def test_the_schedule_and_people_do_not_count_towards_the_limit_of_a_month():
    past = [Retrain(f"r{n}", START - timedelta(days=7 * n + 8), "schedule", "succeeded") for n in range(4)]
    assert decide(drifting(START.date()), past, START, LIMITS, 14).cause == "drift"


def report(day: str, episode: str | None = None, dead: bool = False, version: str = "v1") -> DriftReport:
    made = DriftReport("UNIVERSE", day, version, 120, 3000, [], bool(episode), episode, 0, None, False, "a verdict")
    if dead:
        object.__setattr__(made, "signal_dead", True)
    return made


def test_alarms_come_from_the_report_with_the_day_they_began(tmp_path):
    store = DriftStore(tmp_path)
    made = report("2026-03-05", "v1:2026-03-03")
    store.save(made)
    assert alarms_of(made, store) == (Alarm("drift", "v1:2026-03-03", date(2026, 3, 3), "a verdict"),)
    assert alarms_of(report("2026-03-06"), store) == ()
    (dead,) = alarms_of(report("2026-03-06", dead=True), store)
    assert (dead.cause, dead.episode, dead.since) == ("performance", "v1:2026-03-06", date(2026, 3, 6))


def test_a_dead_signal_began_with_the_unbroken_run_of_reports_of_its_model():
    class Kept:
        """Reports in memory."""

        def __init__(self, *reports: DriftReport) -> None:
            self._reports = {made.day: made for made in reports}

        def days(self, scope: str) -> list[str]:
            return sorted(self._reports)

        def load(self, scope: str, day: str) -> DriftReport:
            return self._reports[day]

    def began(*reports: DriftReport) -> date:
        (alarm,) = alarms_of(reports[-1], Kept(*reports))  # type: ignore[arg-type]
        return alarm.since

    days = [f"2026-03-{day:02}" for day in (2, 3, 4, 5)]
    assert began(*(report(day, dead=True) for day in days)) == date(2026, 3, 2)
    assert began(*(report(day, dead=day != days[1]) for day in days)) == date(2026, 3, 4)
    other = [report(day, dead=True, version="v0" if day < days[3] else "v1") for day in days]
    assert began(*other) == date(2026, 3, 5)
