"""Declare the datasets: where each one is, its licence, and how its clips are read."""

from pipeline.data.datasets import esc, folder, urbansound8k
from pipeline.data.datasets.dataset import Archive, Dataset
from pipeline.params import DatasetName

__all__ = ["DATASETS", "Archive", "Dataset", "get"]


def get(name: DatasetName) -> Dataset:
    """Look up a dataset by its name in ``dataset.name``."""
    return DATASETS[name]


_ESC10_COMMIT = "553c8f1743b9dba6b282e1323c3ca8fa76923448"  # the next one removed the clips
_ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"

DATASETS: dict[DatasetName, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="foley",
            title="Foley, ten urban sounds synthesised",
            homepage="",
            license="made here, no rights of others",
            clip_seconds=4.0,
            read=urbansound8k.read,
            mark=urbansound8k.MARK,
        ),
        Dataset(
            name="esc10",
            title="ESC-10",
            homepage="https://github.com/karolpiczak/ESC-10",
            license="CC BY 3.0",
            clip_seconds=5.0,
            read=esc.read_esc10,
            mark=esc.ESC10_MARK,
            # GitHub makes the zip on request, so its bytes vary: the clips are checked instead.
            archive=Archive(
                f"https://github.com/karoldvl/ESC-10/archive/{_ESC10_COMMIT}.zip",
                f"ESC-10-{_ESC10_COMMIT[:8]}.zip",
                None,
            ),
            content="98dcfc5c90c324e1413fa1975dced99302ebae952bbdfa05a0381f4d07300269",
        ),
        Dataset(
            name="esc50",
            title="ESC-50",
            homepage="https://github.com/karolpiczak/ESC-50",
            license="CC BY-NC 3.0",
            clip_seconds=5.0,
            read=esc.read_esc50,
            mark=esc.ESC50_MARK,
            archive=Archive(
                f"https://github.com/karolpiczak/ESC-50/archive/{_ESC50_COMMIT}.zip",
                f"ESC-50-{_ESC50_COMMIT[:8]}.zip",
                "sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
            ),
        ),
        Dataset(
            name="urbansound8k",
            title="UrbanSound8K",
            homepage="https://urbansounddataset.weebly.com/urbansound8k.html",
            license="CC BY-NC 3.0",
            clip_seconds=4.0,
            read=urbansound8k.read,
            mark=urbansound8k.MARK,
            archive=Archive(
                "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
                "UrbanSound8K.tar.gz",
                "md5:9aa69802bbf37fb986f71ec1483a196e",
            ),
        ),
        Dataset(
            name="folder",
            title="Own recordings",
            homepage="",
            license="as agreed with whoever made them",
            clip_seconds=None,
            read=folder.read,
        ),
    )
}
