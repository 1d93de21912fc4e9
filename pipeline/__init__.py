"""Environmental sound classification, from recordings to a registered model."""
