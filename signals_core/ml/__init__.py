"""Target, validation, training, calibration, registry and monitoring of models."""
