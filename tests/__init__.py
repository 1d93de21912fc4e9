import os

# As many processes as cores run already, and no result depends on the number of threads. The
# libraries read these variables when they are imported, which is after this.
for name in ("OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
