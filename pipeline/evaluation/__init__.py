"""Evaluate models and data: metrics, plots, the report, the leak check and label errors."""
