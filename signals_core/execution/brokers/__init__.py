"""Brokers: a paper account on stored bars, and Alpaca."""
