"""Connect to the MLflow store, log runs, and record what a run was made from."""
