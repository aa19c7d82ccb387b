"""The whole way: targets, plan, submission, fills, positions; on paper, at Alpaca's double, from the command line."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from signals_core.cli import main
from signals_core.errors import OrderConflict, TradingHalted
from signals_core.execution.brokers.alpaca import LIVE_URL
from signals_core.execution.desk import TradingDesk
from signals_core.execution.orders import OrderReport, OrderState
from signals_core.settings_loading import load_settings
from signals_core.steps import ingest
from signals_core.workspace import Workspace
from tests.core.execution.alpaca_server import KEY_ID, SECRET, serving
from tests.core.strategy.test_targets import save
from tests.project.bars import make_bars

EVENING, NEXT_EVENING = "2022-06-28T20:00:00-04:00", "2022-06-29T20:00:00-04:00"
TARGETS = pd.DataFrame({"symbol": ["AAA", "BBB"], "weight": [0.15, -0.1]})


def at(project: Path, moment: str, **environment: str) -> Workspace:
    """The project as it stands at a moment."""
    opened = Workspace(load_settings(project, environ={"SA_CLOCK__AS_OF": moment, **environment}))
    return opened


@pytest.fixture
def ingested(project: Path) -> Path:
    with at(project, "2022-07-03T02:00:00-04:00") as workspace:
        ingest(workspace, workspace.all_symbols())
    return project


def plan_and_submit(project: Path, moment: str) -> list[str]:
    with at(project, moment) as workspace, TradingDesk(workspace) as desk:
        plan, _ = desk.plan(TARGETS, "test", "UNIVERSE")
        return [result for _, result in desk.submit(plan.plan_id)[1].results]


def test_on_paper_from_targets_to_positions(ingested: Path) -> None:
    assert plan_and_submit(ingested, EVENING) == ["accepted", "accepted"]
    assert plan_and_submit(ingested, EVENING) == [], "once more the same evening: there is nothing to do"
    with at(ingested, NEXT_EVENING) as workspace, TradingDesk(workspace) as desk:
        held = {position.symbol: position for position in desk.broker.positions()}
        changed = desk.reconcile().changed
        costs = workspace.settings.trading
    bars = make_bars("AAA").set_index("date")
    close, open_ = bars.loc["2022-06-28", "close"], bars.loc["2022-06-29", "open"]
    assert held["AAA"].quantity == int(0.15 * 100_000 / close)
    assert held["AAA"].average_price == pytest.approx(open_ * (1 + costs.slippage_bps / 1e4))
    assert held["BBB"].quantity < 0
    assert {record.state for record in changed} == {OrderState.FILLED}


def test_a_plan_is_sent_once_and_again_changes_nothing(ingested: Path) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        plan, _ = desk.plan(TARGETS, "test", "UNIVERSE")
        assert desk.broker.list_open() == []
        for expected in ("accepted", "sent before: accepted"):
            assert {result for _, result in desk.submit(plan.plan_id)[1].results} == {expected}
        assert len(desk.broker.list_open()) == 2


def test_a_plan_for_an_open_that_has_passed_is_refused(ingested: Path) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        plan, _ = desk.plan(TARGETS, "test", "UNIVERSE")
    with at(ingested, "2022-06-29T09:30:01-04:00") as workspace, TradingDesk(workspace) as desk:
        with pytest.raises(OrderConflict, match="for the open of 2022-06-29, the next one is 2022-06-30"):
            desk.submit(plan.plan_id)
        assert desk.broker.list_open() == []


def test_a_plan_that_was_overtaken_is_refused(ingested: Path) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        early, _ = desk.plan(TARGETS, "test", "UNIVERSE")
        later, _ = desk.plan(TARGETS.assign(weight=[0.05, 0.05]), "test", "UNIVERSE")
        desk.submit(later.plan_id)
        with pytest.raises(OrderConflict, match="2 other orders moved since"):
            desk.submit(early.plan_id)


def test_the_kill_switch_stops_before_the_first_and_between_two_orders(
    ingested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        plan, _ = desk.plan(TARGETS, "test", "UNIVERSE")
        desk.switch.halt("test")
        with pytest.raises(TradingHalted, match="KILL says: test"):
            desk.submit(plan.plan_id)
        assert desk.ledger.events() == []
        desk.switch.resume()

        submit = type(desk.broker).submit

        def halting(broker: object, order: object) -> OrderReport:
            desk.switch.halt("somebody saw the first fill")
            return submit(broker, order)  # type: ignore[arg-type]

        monkeypatch.setattr(type(desk.broker), "submit", halting)
        done = desk.submit(plan.plan_id)[1]
        assert [result for _, result in done.results] == ["accepted", "not sent"]
        assert (done.halted, "somebody saw" in done.stopped) == (True, True)
        assert len(desk.broker.list_open()) == 1
        monkeypatch.undo()
        desk.switch.resume()
        assert [result for _, result in desk.submit(plan.plan_id)[1].results] == ["sent before: accepted", "accepted"]


def test_a_broker_that_contradicts_the_journal_stops_everything(ingested: Path) -> None:
    plan_and_submit(ingested, EVENING)
    (ingested / "data" / "paper" / "account.sqlite").unlink()
    for leftover in (ingested / "data" / "paper").glob("*"):
        leftover.unlink()
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        assert len(desk.reconcile().conflicts) == 2
        with pytest.raises(OrderConflict, match="does not know it any more"):
            desk.plan(TARGETS, "test", "UNIVERSE")


def test_what_was_never_sent_is_given_up_when_its_session_opens(ingested: Path) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        plan, _ = desk.plan(TARGETS, "test", "UNIVERSE")
        desk.ledger.intend(plan.orders[0])
        assert desk.reconcile().changed == []
    with at(ingested, "2022-06-29T11:00:00-04:00") as workspace, TradingDesk(workspace) as desk:
        (given_up,) = desk.reconcile().changed
        assert (given_up.state, given_up.reason) == (OrderState.CANCELLED, "never sent; its session has opened")


def test_quotes_know_nothing_of_later_sessions(ingested: Path) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        quote = desk.quotes({"AAA", "NONE"})
    assert list(quote) == ["AAA"]
    assert (quote["AAA"].session, quote["AAA"].age_sessions) == (date(2022, 6, 28), 0)
    assert quote["AAA"].close == pytest.approx(make_bars("AAA").set_index("date").loc["2022-06-28", "close"])


# -- the command line --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(home: Path, *arguments: str, **environment: str) -> Done:
    """The command in this process: a new one spends seconds on imports."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    variables = {"SIGNALS_HOME": str(home), "SA_CLOCK__AS_OF": EVENING, "COLUMNS": "200", **environment}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(home)
        patch.setattr(sys, "argv", ["signals", *arguments])
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture
def home(ingested: Path) -> Path:
    TARGETS.to_csv(ingested / "targets.csv", index=False)
    return ingested


def test_orders_from_plan_to_positions(home: Path) -> None:
    planned = json.loads(run(home, "orders", "plan", "--targets", "targets.csv", "--json").stdout)
    assert [row["status"] for row in planned["rows"]] == ["order", "order"]
    assert json.loads(run(home, "orders", "list", "--json").stdout) == []
    assert run(home, "orders", "submit").returncode == 2
    assert run(home, "orders", "submit", "--plan", "0" * 12).returncode == 4
    assert run(home, "orders", "plan").returncode == 4, "no targets are stored"

    assert run(home, "orders", "halt", "--reason", "a test").returncode == 0
    halted = run(home, "orders", "submit", "--plan", planned["plan_id"])
    assert (halted.returncode, "KILL says: a test" in halted.stderr) == (3, True)
    assert json.loads(run(home, "orders", "plan", "--targets", "targets.csv", "--json").stdout)["halted"]
    assert run(home, "orders", "resume").returncode == 0

    sent = json.loads(run(home, "orders", "submit", "--plan", planned["plan_id"], "--json").stdout)
    assert [item["result"] for item in sent["results"]] == ["accepted", "accepted"]
    later = {"SA_CLOCK__AS_OF": NEXT_EVENING}
    changed = json.loads(run(home, "orders", "reconcile", "--json", **later).stdout)["changed"]
    assert {item["state"] for item in changed} == {"filled"}
    held = json.loads(run(home, "positions", "--json", **later).stdout)
    assert [item["symbol"] for item in held["positions"]] == ["AAA", "BBB"]
    assert "AAA" in run(home, "positions", **later).stdout


def test_stored_targets_are_the_default_and_yes_sends_at_once_and_only_once(home: Path) -> None:
    folder = home / "data" / "targets" / "scope=UNIVERSE"
    folder.mkdir(parents=True)
    TARGETS.to_parquet(folder / "2022-06-28.parquet")
    first, second = (json.loads(run(home, "orders", "submit", "--yes", "--json").stdout) for _ in range(2))
    assert [len(first["results"]), len(second["results"])] == [2, 0]
    cancelled = json.loads(run(home, "orders", "cancel", "--all", "--json").stdout)["changed"]
    assert {item["state"] for item in cancelled} == {"cancelled"}
    assert json.loads(run(home, "orders", "submit", "--yes", "--json").stdout)["results"] == []
    assert len(json.loads(run(home, "orders", "submit", "--yes", "--retry", "--json").stdout)["results"]) == 2


def test_a_scope_s_plan_has_its_signals_alone_under_its_name(home: Path) -> None:
    assert run(home, "orders", "plan", "--scope", "AAA").returncode == 4, "no signals are stored"
    with at(home, EVENING) as workspace:
        save(workspace, {date(2022, 6, 28): {"BBB": -0.1}})
        save(workspace, {date(2022, 6, 28): {"AAA": 0.1}}, "AAA")

    def planned(*arguments: str, **environment: str) -> tuple[str, dict[str, str]]:
        plan = json.loads(run(home, "orders", "plan", "--json", *arguments, **environment).stdout)
        return plan["scope"], {row["symbol"]: row["client_order_id"] for row in plan["rows"]}

    name, orders = planned()
    assert (name, list(orders)) == ("UNIVERSE", ["AAA", "BBB"])
    assert planned("--scope", "UNIVERSE") == ("UNIVERSE", {"BBB": orders["BBB"]})
    own, alone = planned("--scope", "AAA")
    assert (own, list(alone)) == ("AAA", ["AAA"])
    assert alone["AAA"] != orders["AAA"]

    unknown = run(home, "orders", "plan", "--scope", "BBB")
    assert (unknown.returncode, "--scope BBB: not one of ml.scopes" in unknown.stderr) == (2, True)
    closing = {"SA_EXECUTION__CLOSE_MISSING": "true"}
    assert planned(**closing) == (name, orders)
    refused = run(home, "orders", "submit", "--yes", "--scope", "AAA", **closing)
    assert (refused.returncode, "would close what the other scopes hold" in refused.stderr) == (2, True)
    assert planned("--scope", "UNIVERSE", **closing, SA_ML__SCOPES='["UNIVERSE"]')[0] == "UNIVERSE"

    sent = json.loads(run(home, "orders", "submit", "--yes", "--scope", "AAA", "--json").stdout)["results"]
    assert [order["client_order_id"] for order in sent] == [alone["AAA"]]
    assert planned()[1] == {"AAA": "", "BBB": orders["BBB"]}, "what waits under another name is not ordered again"


@pytest.mark.parametrize("beside", [("--scope", "AAA"), ("--targets", "targets.csv"), ("--retry",)])
def test_a_plan_is_sent_as_it_was_shown(home: Path, beside: tuple[str, ...]) -> None:
    plan_id = json.loads(run(home, "orders", "plan", "--targets", "targets.csv", "--json").stdout)["plan_id"]
    done = run(home, "orders", "submit", "--plan", plan_id, *beside)
    assert (done.returncode, "as it was shown" in done.stderr) == (2, True)
    assert json.loads(run(home, "orders", "list", "--json").stdout) == []


def test_at_alpaca_no_file_and_no_output_holds_a_key(home: Path) -> None:
    with serving() as alpaca:
        faults = iter(["", "504 after accepting"])
        alpaca.fault = lambda method, path: next(faults, "") if method == "POST" else ""
        keys = {"APCA_API_KEY_ID": KEY_ID, "APCA_API_SECRET_KEY": SECRET}
        how = {"SA_EXECUTION__BROKER": "alpaca", "SA_EXECUTION__ALPACA_URL": alpaca.url, **keys}
        outputs = [
            run(home, *arguments, **how)
            for arguments in (
                ("orders", "plan", "--targets", "targets.csv"),
                ("orders", "submit", "--yes", "--targets", "targets.csv"),
                ("orders", "list"), ("orders", "reconcile"), ("positions",), ("config", "show"), ("doctor",),
                ("orders", "cancel", "--all"),
            )
        ]  # fmt: skip
        assert [done.returncode for done in outputs[:6]] == [0] * 6
        assert len(alpaca.orders) == 2
        assert "BBB" in outputs[1].stdout
    written = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    said = [text.encode() for done in outputs for text in (done.stdout, done.stderr)]
    assert any(b"accepted" in text for text in said)
    assert [text for text in (*written, *said) if KEY_ID.encode() in text or SECRET.encode() in text] == []


def test_the_live_service_needs_two_settings(home: Path) -> None:
    keys = {"APCA_API_KEY_ID": KEY_ID, "APCA_API_SECRET_KEY": SECRET, "SA_EXECUTION__BROKER": "alpaca"}
    for how in ({"SA_EXECUTION__LIVE": "true"}, {"SA_EXECUTION__ALPACA_URL": LIVE_URL}):
        done = run(home, "positions", **keys, **how)
        assert (done.returncode, "execution.live" in done.stderr, SECRET in done.stderr) == (2, True, False)


def test_the_moment_of_these_tests_is_an_evening_between_two_sessions(ingested: Path) -> None:
    with at(ingested, EVENING) as workspace, TradingDesk(workspace) as desk:
        assert workspace.now.astimezone(UTC) == datetime(2022, 6, 29, 0, tzinfo=UTC)
        assert (desk.sessions().last_closed, desk.sessions().next_open) == (date(2022, 6, 28), date(2022, 6, 29))
