"""Point-in-time features of one symbol, by category."""
