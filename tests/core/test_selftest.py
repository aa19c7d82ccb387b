"""The self-test passes here, and fails on an installation that is broken."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from signals_core import selftest
from signals_core.cli.selftest import selftest_command
from signals_core.features.technical import TechnicalFeatureCalculator
from signals_core.ml import tuning
from signals_core.ml.metrics import Estimate
from signals_core.selftest import Finding, SelfTest, check_integrity, check_null, check_volatility
from signals_core.synthetic import Market, MarketModel, make_market
from signals_core.synthetic.judgement import judge
from signals_core.workspace import Panel


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if not finding.passed}


def test_integrity_is_found_here_and_its_checks_are_not_empty() -> None:
    findings = check_integrity(seed=5)
    assert failed(findings) == set()
    assert len(findings) == 9
    assert len({finding.name for finding in findings}) == 9


def test_a_calculator_that_looks_ahead_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TechnicalFeatureCalculator.calculate

    def peek(self: TechnicalFeatureCalculator, inputs: object) -> pd.DataFrame:
        frame = honest(self, inputs)  # type: ignore[arg-type]
        return frame.assign(macd_pct=frame["macd_pct"].shift(-1))

    monkeypatch.setattr(TechnicalFeatureCalculator, "calculate", peek)
    findings = check_integrity(seed=5)
    assert failed(findings) == {"no feature changes when its future is cut off"}
    (finding,) = [f for f in findings if not f.passed]
    assert (finding.figure, finding.threshold, finding.rule, finding.detail) == (1, 0, "at most", "macd_pct")


def test_a_split_that_shuffles_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(target: pd.DataFrame, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        score = np.random.default_rng(0).random(len(target)) < fraction
        return ~score, score

    monkeypatch.setattr(selftest, "split_latest", shuffled)
    monkeypatch.setattr(tuning, "split_latest", shuffled)
    assert failed(check_integrity(seed=5)) == {"tuning scores on later dates than it fits"}


def test_a_feature_that_knows_the_label_fails_the_null(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Market.panel

    def leaking(self: Market, *given: object, **named: object) -> Panel:
        panel = honest(self, *given, **named)  # type: ignore[arg-type]
        return Panel(panel.features.assign(oracle=panel.target["forward_return"].astype("float32")), panel.target)

    monkeypatch.setattr(Market, "panel", leaking)
    names = failed(check_null(seed=5, symbols=10, trials=1))
    assert {"log-loss gain in standard errors", "share of rows above 0.55"} <= names


def test_a_feature_that_knows_the_direction_fails_where_only_volatility_can_be_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Market.panel

    def leaking(self: Market, *given: object, **named: object) -> Panel:
        panel = honest(self, *given, **named)  # type: ignore[arg-type]
        side = np.sign(panel.target["forward_return"]).astype("float32")
        return Panel(panel.features.assign(oracle=side), panel.target)

    monkeypatch.setattr(Market, "panel", leaking)
    names = failed(check_volatility(seed=5, symbols=10, trials=1))
    assert {"gain of UP against DOWN in standard errors", "|Sharpe ratio|"} <= names


def test_bars_that_break_their_schema_are_a_finding_and_no_crash() -> None:
    market = make_market(2, "2015-01-02", "2015-06-01", MarketModel(), seed=2)
    assert selftest._bad_bars(market) == []
    market.bars["S001"].iloc[3, market.bars["S001"].columns.get_loc("high")] = 0.01
    (problem,) = selftest._bad_bars(market)
    assert "S001" in problem
    assert "high" in problem


def test_a_judgement_knows_its_dates_parts_and_that_nothing_is_planted() -> None:
    market = make_market(4, "2015-01-02", "2018-07-10", MarketModel("random_walk"), seed=2)
    whole = market.panel()
    kept = whole.features.index.get_level_values("date") >= "2015-07-01"
    found = judge(market, Panel(whole.features[kept], whole.target[kept]), trials=1)
    # July 2017 .. June 2018 are tested; the first half only calibrates, and labels end before the window does.
    assert found.dates == 125 - 5
    assert found.gain.mean == pytest.approx(found.gain_flat_or_move.mean + found.gain_direction.mean)
    assert found.years == pytest.approx(120 / 252)
    assert np.isnan([found.share, found.raw_share, found.realised_share]).all()
    assert found.luck.dates == 0
    assert isinstance(found.gain, Estimate)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The command on findings that are given, so that it answers at once."""

    def run(findings: list[Finding], *arguments: str):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(selftest, "selftest", lambda seed, *_: SelfTest(seed, findings))
        app = typer.Typer()
        app.command()(selftest_command)
        return CliRunner().invoke(app, list(arguments))

    return run


GOOD = Finding("a market, seed 4", "a", True, 1.0, 2.0, "at most")
ESTIMATE = Finding("a market, seed 4", "b", False, float("nan"), 2.0, "at least", "why")
EXACT = Finding("another, seed 4", "c", False, 1.0, 0.0, "at most", "why", exact=True)


@pytest.mark.parametrize(
    ("findings", "code", "said"),
    [
        ([GOOD], 0, "all 1 passed with seed 4: on invented markets this installation finds what is there, and no more"),
        ([GOOD, ESTIMATE], 3, "1 of 2 failed with seed 4: do not trust this installation yet"),
        ([GOOD, EXACT], 3, "1 of 2 failed, not by chance: do not trust this installation"),
        ([ESTIMATE, EXACT], 3, "2 of 2 failed, not by chance"),
    ],
)
def test_the_command_says_whether_to_trust_the_installation_and_ends_with_3_if_not(  # type: ignore[no-untyped-def]
    command, findings, code, said
) -> None:
    result = command(findings, "--seed", "4")
    assert result.exit_code == code
    text = " ".join(result.stdout.split())
    assert said in text
    assert ("signals selftest --seed 5" in text) == (findings == [GOOD, ESTIMATE])
    assert all(finding.market in text for finding in findings)


def test_the_command_gives_every_finding_as_json(command) -> None:  # type: ignore[no-untyped-def]
    result = command([GOOD, ESTIMATE], "--seed", "4", "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert (document["trusted"], document["seed"]) == (False, 4)
    assert "do not trust this installation yet" in document["verdict"]
    assert document["findings"][0] == {
        "market": "a market, seed 4", "name": "a", "passed": True, "figure": 1.0, "threshold": 2.0,
        "rule": "at most", "detail": "", "exact": False,
    }  # fmt: skip
    assert document["findings"][1]["figure"] is None


@pytest.mark.slow
def test_the_whole_self_test_passes() -> None:
    result = selftest.selftest(workers=1)
    assert failed(result.findings) == set()
    assert result.trusted
    assert len(result.findings) == 5 + 5 + 2 + 9
    assert all("seed 1" in finding.market for finding in result.findings)
