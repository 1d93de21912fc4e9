"""Environmental sound classification, from recordings to a registered model."""

import os

# TensorFlow and gRPC read these once, when they are first imported, and every module of ours is
# imported after this one. Set nothing else here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
