"""Print the source files of every module that serving loads; run while the image is built."""

import importlib
import sys

SERVING = (
    "bentoml_cli.cli",  # the process that supervises
    "_bentoml_impl.worker.service",  # the worker
    "pipeline.serving.service",
    "pipeline.serving.app",
    "av",
)

for name in SERVING:
    importlib.import_module(name)
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
print(*sorted(file for file in files if file.endswith(".py") and file != __file__), sep="\n")
