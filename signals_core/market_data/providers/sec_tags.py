"""Which us-gaap and dei tags state a figure, and what kind of number a tag is."""

# Each list in order of preference: a value is that of the first tag that has one.
REVENUE = (
    "Revenues",
    "RevenueFromContractWithCustomerExcludingAssessedTax",
    "SalesRevenueNet",
    "RevenueFromContractWithCustomerIncludingAssessedTax",
    "RevenuesNetOfInterestExpense",
    "SalesRevenueGoodsNet",
    "SalesRevenueServicesNet",
)
NET_INCOME = ("NetIncomeLoss", "ProfitLoss", "NetIncomeLossAvailableToCommonStockholdersBasic")
EPS = ("EarningsPerShareDiluted", "EarningsPerShareBasicAndDiluted", "EarningsPerShareBasic")
DIVIDENDS = ("CommonStockDividendsPerShareDeclared", "CommonStockDividendsPerShareCashPaid")
OPERATING_INCOME = ("OperatingIncomeLoss",)
DEPRECIATION_AND_AMORTISATION = (
    # Of the cash flow statement; the others are also used for property and equipment alone.
    "DepreciationAmortizationAndAccretionNet",
    "DepreciationDepletionAndAmortization",
    "DepreciationAmortizationAndOther",
    "DepreciationAndAmortization",
)
DEPRECIATION = ("Depreciation", "DepreciationNonproduction")
AMORTISATION = ("AmortizationOfIntangibleAssets",)

EQUITY = ("StockholdersEquity", "StockholdersEquityIncludingPortionAttributableToNoncontrollingInterest")
CASH = (
    "CashAndCashEquivalentsAtCarryingValue",
    "CashCashEquivalentsRestrictedCashAndRestrictedCashEquivalents",
    "CashAndDueFromBanks",
    "Cash",
)
CURRENT_ASSETS, CURRENT_LIABILITIES = ("AssetsCurrent",), ("LiabilitiesCurrent",)
LONG_TERM_DEBT = ("LongTermDebt",)
"""Both parts in one."""
NONCURRENT_DEBT = ("LongTermDebtNoncurrent",)
CURRENT_MATURITIES = ("LongTermDebtCurrent",)
WITH_LEASES = ("LongTermDebtAndCapitalLeaseObligationsIncludingCurrentMaturities",)
NONCURRENT_WITH_LEASES = ("LongTermDebtAndCapitalLeaseObligations",)
CURRENT_MATURITIES_WITH_LEASES = ("LongTermDebtAndCapitalLeaseObligationsCurrent",)
CURRENT_DEBT = ("DebtCurrent",)
"""Current maturities and short-term borrowings in one."""
SHORT_TERM_DEBT = ("ShortTermBorrowings", "CommercialPaper")
"""Short-term borrowings, of which commercial paper is a part."""

COVER_SHARES = "EntityCommonStockSharesOutstanding"
SHARES = ("CommonStockSharesOutstanding",)
AVERAGE_SHARES = ("WeightedAverageNumberOfSharesOutstandingBasic", "WeightedAverageNumberOfDilutedSharesOutstanding")
SHARE_COUNTS = frozenset({*SHARES, *AVERAGE_SHARES})
PER_SHARE = frozenset({*EPS, *DIVIDENDS})

FLOW_TAGS = frozenset({
    *REVENUE, *NET_INCOME, *EPS, *DIVIDENDS, *OPERATING_INCOME, *DEPRECIATION_AND_AMORTISATION,
    *DEPRECIATION, *AMORTISATION, *AVERAGE_SHARES,
})  # fmt: skip
BALANCE_TAGS = frozenset({
    *EQUITY, *CASH, *LONG_TERM_DEBT, *NONCURRENT_DEBT, *CURRENT_MATURITIES, *WITH_LEASES,
    *NONCURRENT_WITH_LEASES, *CURRENT_MATURITIES_WITH_LEASES, *CURRENT_DEBT, *SHORT_TERM_DEBT, *SHARES,
    *CURRENT_ASSETS, *CURRENT_LIABILITIES,
})  # fmt: skip
RENAMED = (REVENUE, NET_INCOME, DEPRECIATION_AND_AMORTISATION)
"""Lists whose tags filers change in the middle of a fiscal year."""
PERIOD_TAGS = frozenset({*REVENUE, *NET_INCOME, *EPS, *OPERATING_INCOME})
"""Every income statement has one of them: their dates are the fiscal periods."""
