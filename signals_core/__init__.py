"""Market data to calibrated, monitored, tradeable stock signals, as a plain library."""

__version__ = "0.1.0"
