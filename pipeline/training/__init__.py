"""How a network is trained: fitting, calibration, hyper-parameter search, cross-validation."""
