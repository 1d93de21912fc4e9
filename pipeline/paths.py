"""Name the files that the stages read and write, relative to the repository's root.

``dvc.yaml`` names the same files; a test checks that they agree.
"""

from pathlib import Path

PARAMS = Path("params.yaml")

LOCK = Path("dvc.lock")
"""DVC's record of the hashes of every stage's inputs and outputs."""

SOUNDS = Path("sounds")
"""Where users put their own recordings; the default source of the dataset ``folder``."""

DOWNLOADS = Path("data/downloads")
"""Archives, packed and unpacked. It is not a stage output, so DVC never deletes it."""

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
"""One page about the run. ``python -m pipeline report`` makes it, not a stage."""

BUNDLE = Path("bundle")
"""What the service loads. ``python -m pipeline package`` makes it, not a stage."""

CROSSVAL = Path("reports/crossval.json")
CROSSVAL_FOLDS = Path("reports/crossval_folds.csv")
CROSSVAL_CLASSES = Path("reports/crossval_classes.csv")
CROSSVAL_PREDICTIONS = Path("reports/crossval_predictions.csv")
CROSSVAL_CONFUSION = Path("reports/crossval_confusion.png")
CROSSVAL_UNITS = Path("crossval/units")
"""Finished trainings of a cross-validation. It is not a stage output, so DVC never deletes it."""

CORRECTIONS = Path("labels.csv")
"""Manual corrections of labels, see :mod:`pipeline.data.corrections`."""

LABEL_ERRORS = Path("reports/label_errors.csv")
LABEL_ERRORS_PAGE = Path("reports/label_errors.html")
"""Likely label errors. ``python -m pipeline label-errors`` makes both files, not a stage."""

LEAKS = Path("reports/leaks.csv")
PROTOCOLS = Path("reports/protocols.csv")
"""Leaks found, and accuracy by protocol. ``python -m pipeline leakcheck`` makes both files."""

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
"""The outputs of the stages. If one of them is missing, its stage has not run."""
