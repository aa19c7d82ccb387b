"""The catalogue as a page to read."""

from signals_core.features.catalog import CATEGORIES, Catalog, Category

_INTRODUCTIONS: dict[Category, str] = {
    "technical": "Of the symbol's own bars, adjusted forward for splits and dividends. Nothing is in units of price or "
    "shares, so that a split changes nothing and symbols can be pooled.",
    "fundamental": "Of filings as known at each close, in the version known then, against that day's price. What is "
    "counted in shares is counted in shares of one day, across splits. A figure that the last version of a quarter "
    "does not state leaves missing what is made of it; so does a limit of `features.max_age_days`.",
    "cross_asset": "Against the instruments of `universe.reference`; a session that an instrument lacks stays missing.",
    "alternative": "Of insiders' trades from when they were filed, and short interest from when it was published.",
    "temporal": "Of the session's date.",
}


def as_markdown(catalog: Catalog) -> str:
    """A section a category, a row a feature."""
    parts = [
        "# Features",
        "",
        "Made by `signals features docs`. Row t of a feature uses only what was knowable at the close of session t; "
        "`signals check leakage` shows it. *Warm-up* counts the rows at the start of a symbol's history in which a "
        "feature is missing; infinite values are missing.",
    ]
    for category in CATEGORIES:
        parts += [
            "",
            f"## {category.replace('_', '-')}",
            "",
            _INTRODUCTIONS[category],
            "",
            "| feature | formula | unit | warm-up | needs | missing when |",
            "|---|---|---|---|---|---|",
        ]
        for feature in catalog.values():
            if feature.category == category:
                source = f" ({feature.source})" if feature.source else ""
                needs = ", ".join(need for need in feature.needs if need != "bars") or "bars"
                cells = (
                    f"`{feature.name}`",
                    f"{feature.formula}{source}",
                    feature.unit,
                    feature.warm_up,
                    needs,
                    feature.missing,
                )
                parts.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"
