"""Train networks: fitting, calibration, hyper-parameter search and cross-validation."""
