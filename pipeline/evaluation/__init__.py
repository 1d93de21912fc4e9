"""How good a model is, and whether that is true: metrics, plots, report, label errors."""
