"""Markets with a known truth, to learn on and to test with: what is invented here is never market data.

`make_market` invents bars of correlated symbols on real exchange sessions, of three kinds: a random walk, the
same with stochastic volatility, and a planted drift whose best possible forecast is known in closed form.
`make_facts` invents filings with publication lags and restatements, insider trades and short interest.

    from signals_core.synthetic import MarketModel, make_market

    market = make_market(50, "2018-01-01", "2022-01-01", MarketModel("planted_drift"), seed=1)
    panel = market.panel()                       # features and target of the real calculators
    market.truth.bayes_gain(MLSettings())        # what a perfect model would gain over the class prior, in nats

A symbol's path depends on the seed and its own name only: it is the same whichever other symbols are asked
for, and a later end only adds to it.
"""

from signals_core.synthetic.facts import FilingTruth, SymbolFacts, make_facts
from signals_core.synthetic.market import Market, MarketModel, make_market
from signals_core.synthetic.truth import NormalTruth, VolatilityTruth, class_probabilities, expected_gain_rows

__all__ = [
    "FilingTruth",
    "Market",
    "MarketModel",
    "NormalTruth",
    "SymbolFacts",
    "VolatilityTruth",
    "class_probabilities",
    "expected_gain_rows",
    "make_facts",
    "make_market",
]
