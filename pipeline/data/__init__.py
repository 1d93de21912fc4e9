"""Clips, labels and folds: datasets, downloads, corrections, splits and the feature store."""
