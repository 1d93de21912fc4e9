"""What runs, in order: one module per stage, each only with its `main` and its closing line."""
