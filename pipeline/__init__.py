"""Environmental sound classification, from recordings to a registered model."""

import os

# Libraries read these when they are first imported, and this module is imported before all others.
# TensorFlow: no messages below errors. MLflow: no telemetry, and no progress bar for small files.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
