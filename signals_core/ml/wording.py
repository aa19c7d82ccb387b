"""A model's figures in words: the same in the report and under the pictures."""

from collections.abc import Mapping
from typing import Any


def calibration_note(figures: Mapping[str, Any]) -> str:
    """The calibration error beside what a model that is right would show; empty for versions without it."""
    if figures.get("classwise_ece_chance") is None:
        return ""
    return (
        f"classwise calibration error {figures['classwise_ece']:.3f}; a model that is right shows "
        f"{figures['classwise_ece_chance']:.3f} on as many dates, 95 %: {figures['classwise_ece_chance_high']:.3f}"
    )


def judgement_lines(figures: Mapping[str, Any]) -> list[str]:
    """How good the probabilities are, and what following them would have earned; uncertainty with each figure.

    Args:
        figures: metrics of a version; those of an older program lack some, which are left out.
    """
    lines = [note] if (note := calibration_note(figures)) else []
    if figures.get("brier_skill") is not None:
        lines.append(
            f"balanced accuracy {figures['balanced_accuracy']:.3f} (.333 without skill), "
            f"Brier skill {figures['brier_skill']:+.4f}"
        )
    if figures.get("information_coefficient") is not None:
        over = "across symbols" if figures["information_coefficient_across_symbols"] else "over time"
        lines.append(
            f"information coefficient {over} {figures['information_coefficient']:+.3f} ± "
            f"{figures['information_coefficient_error']:.3f}"
        )
    if figures.get("deflated_sharpe") is not None:
        lines.append(
            f"Sharpe of the signal after costs {figures['sharpe']:+.2f} ± {figures['sharpe_error']:.2f} a year; "
            f"probability that it is above 0: {figures['probabilistic_sharpe']:.2f}, "
            f"and with all {figures['trials']:,} trials counted: {figures['deflated_sharpe']:.2f}"
        )
    if figures.get("overfitting_probability") is not None:
        lines.append(
            f"probability that the searches for parameters overfitted {figures['overfitting_probability']:.2f} "
            f"(.5 is chance); their choice is worse than the class prior in "
            f"{figures['overfitting_probability_of_loss']:.2f} of the halves"
        )
    return lines


def signed(share: float) -> str:
    """A share in percent, with its sign."""
    return f"{share:+.1%}"
