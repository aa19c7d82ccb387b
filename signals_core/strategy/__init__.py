"""From probabilities to signals."""
