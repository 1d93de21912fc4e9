"""Print the source files of all modules that the service loads, for the image build."""

import importlib
import sys

SERVING = (
    "bentoml_cli.cli",  # the supervising process
    "_bentoml_impl.worker.service",  # the worker
    "pipeline.serving.service",
    "pipeline.serving.app",
    "av",
)

for name in SERVING:
    importlib.import_module(name)
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
print(*sorted(file for file in files if file.endswith(".py") and file != __file__), sep="\n")
