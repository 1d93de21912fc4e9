"""Where the stages read and write, relative to the repository's root.

``dvc.yaml`` names the same files; a test holds the two together.
"""

from pathlib import Path

PARAMS = Path("params.yaml")

LOCK = Path("dvc.lock")
"""Written by DVC: what the stages were made from and what they made, by hash."""

SOUNDS = Path("sounds")
"""Where people put their own recordings; the default source of ``folder``."""

DOWNLOADS = Path("data/downloads")
"""Archives and unpacked archives; not a stage output, so DVC never deletes it."""

AUDIO = Path("data/audio")
CLIPS = Path("data/clips.csv")
REJECTED = Path("data/rejected.csv")
DATASET = Path("data/dataset.json")
SUMMARY = Path("data/summary.json")
SUMMARY_PLOT = Path("data/summary.png")

FEATURES = Path("features/features.npy")
FEATURE_INDEX = Path("features/index.csv")
FEATURE_SPEC = Path("features/spec.npz")

BEST_PARAMS = Path("models/best_params.json")
TRIALS = Path("reports/trials.csv")
MODEL = Path("models/model.keras")
MODEL_SPEC = Path("models/spec.npz")
RUN = Path("models/run.json")
HISTORY = Path("reports/history.csv")

METRICS = Path("reports/metrics.json")
PREDICTIONS = Path("reports/predictions.csv")
PER_CLASS = Path("reports/per_class.csv")
PER_CLASS_PLOT = Path("reports/per_class.png")
CONFUSION_PLOT = Path("reports/confusion.png")
RELIABILITY = Path("reports/reliability.csv")
RELIABILITY_PLOT = Path("reports/reliability.png")
ABSTENTION = Path("reports/abstention.csv")
ABSTENTION_PLOT = Path("reports/abstention.png")
EXAMPLES = Path("reports/examples")
SEARCH_PLOT = Path("reports/search.png")
LEARNING_CURVES = Path("reports/learning_curves.png")
REGISTRATION = Path("models/registration.json")

REPORT = Path("reports/report.html")
"""One page about the run; made by ``python -m pipeline report``, not by a stage."""

BUNDLE = Path("bundle")
"""What the service serves; made by ``python -m pipeline package``, not by a stage."""

CROSSVAL = Path("reports/crossval.json")
CROSSVAL_FOLDS = Path("reports/crossval_folds.csv")
CROSSVAL_CLASSES = Path("reports/crossval_classes.csv")
CROSSVAL_PREDICTIONS = Path("reports/crossval_predictions.csv")
CROSSVAL_CONFUSION = Path("reports/crossval_confusion.png")
CROSSVAL_UNITS = Path("crossval/units")
"""Finished trainings of a cross-validation; not a stage output, so DVC never deletes it."""

CORRECTIONS = Path("labels.csv")
"""Corrections of labels by hand: see :mod:`pipeline.data.corrections`."""

LABEL_ERRORS = Path("reports/label_errors.csv")
LABEL_ERRORS_PAGE = Path("reports/label_errors.html")
"""Of ``python -m pipeline label-errors``."""

LEAKS = Path("reports/leaks.csv")
PROTOCOLS = Path("reports/protocols.csv")
"""Of ``python -m pipeline leakcheck``."""

OUTPUTS = {value for value in list(vars().values()) if isinstance(value, Path)} - {
    PARAMS,
    LOCK,
    SOUNDS,
    DOWNLOADS,
    CROSSVAL_UNITS,
    BUNDLE,
    REPORT,
    CORRECTIONS,
    LABEL_ERRORS,
    LABEL_ERRORS_PAGE,
    LEAKS,
    PROTOCOLS,
}
"""What the stages write, so what is missing where one has not run."""
