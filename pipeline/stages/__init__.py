"""Run the pipeline: one module per stage, each with only its `main` and its closing line."""
