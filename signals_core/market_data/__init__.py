"""Bars and facts with the moment each became knowable."""
