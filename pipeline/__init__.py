"""Environmental sound classification, from recordings to a registered model."""

import os

# Libraries read these once, when they are first imported, and every module of ours is imported
# after this one. TensorFlow: warnings only. MLflow: no bar for every small file, and tell nobody
# that it is used.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
