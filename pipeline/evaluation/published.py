"""List the accuracies that others have published for the datasets.

All are means over the official folds. Only a cross-validation (``crossval/dvc.yaml``) is comparable
with them; the accuracy on one test fold is not.
"""

from dataclasses import dataclass

from pipeline.params import DatasetName


@dataclass(frozen=True)
class Published:
    """A published accuracy.

    Attributes
    ----------
    who : str
        Listener, method or network.
    accuracy : float
        Between 0 and 1.
    source : str
        The publication.
    remark : str
        Caveat for a comparison; may be empty.
    """

    who: str
    accuracy: float
    source: str
    remark: str = ""


_BEST_EPOCH = "the epoch was probably chosen on the scored fold"

FIGURES: dict[DatasetName, tuple[Published, ...]] = {
    "esc10": (
        Published("human listeners", 0.957, "Piczak 2015, ESC"),
        Published("random forest", 0.727, "Piczak 2015, ESC"),
        Published("Piczak CNN", 0.802, "Piczak 2015, MLSP"),
        Published("EnvNet-v2", 0.914, "Tokozume et al. 2018", "strong augmentation"),
        Published("mixup CNN", 0.917, "Zhang et al. 2018", "mixup"),
        Published("ACDNet", 0.9665, "Mohaimenuzzaman et al. 2023", _BEST_EPOCH),
    ),
    "urbansound8k": (
        Published("Piczak CNN", 0.731, "Piczak 2015, MLSP"),
        Published("SB-CNN", 0.73, "Salamon and Bello 2017"),
        Published("SB-CNN, augmented", 0.79, "Salamon and Bello 2017", "augmentation"),
        Published("mixup CNN", 0.837, "Zhang et al. 2018", "mixup"),
        Published("ACDNet", 0.8445, "Mohaimenuzzaman et al. 2023", _BEST_EPOCH),
    ),
}
"""Published accuracies by dataset; `foley` and `folder` have none."""
