"""What is on record: the MLflow store, runs, and what a run was made from."""
