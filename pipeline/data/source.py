"""Find the folder that a dataset is read from: download, generate or unpack it if necessary."""

import hashlib
import shutil
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from pipeline import paths
from pipeline.data.archives import unpack
from pipeline.data.datasets import Dataset, foley
from pipeline.data.fetch import fetch, verify
from pipeline.errors import UserError
from pipeline.params import DatasetParams, FoleyParams
from pipeline.sound.files import SUFFIXES

Origin = Literal["published", "generated", "local"]


def find(dataset: Dataset, settings: DatasetParams) -> tuple[Path, Origin]:
    """Find the dataset's folder; download, generate or unpack it if it is not here yet.

    Parameters
    ----------
    dataset : Dataset
    settings : DatasetParams
        Section ``dataset``.

    Returns
    -------
    Path
        The folder that holds the dataset, perhaps inside one more folder.
    {'published', 'generated', 'local'}
        Where it came from.

    Raises
    ------
    UserError
        When it is missing, cannot be downloaded or cannot be unpacked.
    """
    if settings.source is not None:
        return _local(settings.source, settings.sha256), "local"
    if dataset.archive is not None:
        published = dataset.archive
        path = fetch(published.url, published.checksum, paths.DOWNLOADS, published.file_name)
        return unpack(path, paths.DOWNLOADS / dataset.name), "published"
    if dataset.name == "foley":
        return generate(settings.foley), "generated"
    return _local(str(paths.SOUNDS), settings.sha256), "local"


def generate(settings: FoleyParams) -> Path:
    """Generate the built-in dataset, unless the same one was generated before.

    Parameters
    ----------
    settings : FoleyParams
        Section ``dataset.foley``.

    Returns
    -------
    Path
        Its folder.
    """
    code = Path(foley.__file__).read_bytes()
    folder = paths.DOWNLOADS / f"foley-{_digest(code + settings.model_dump_json().encode())}"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        foley.generate(
            settings,
            unfinished,
            lambda all_of_them: tqdm(all_of_them, "generate", unit="recording", disable=None),
        )
        unfinished.replace(folder)
    return folder


def _local(source: str, sha256: str | None) -> Path:
    """Return the folder that ``dataset.source`` names, downloaded or unpacked if necessary."""
    checksum = sha256 and f"sha256:{sha256}"
    parts = urlsplit(source)
    name = f"{_digest(source.encode())}-{PurePosixPath(parts.path).name}"
    if parts.scheme in ("http", "https", "file"):
        path = fetch(source, checksum, paths.DOWNLOADS, name)
    elif parts.netloc:
        raise UserError(
            f"dataset.source cannot be a {parts.scheme} address: name a folder, an archive, or an"
            " http, https or file address."
        )
    else:
        path = Path(source).expanduser()
    if not path.exists():
        raise UserError(
            f"{path} is missing: make it with one sub-folder per label, or correct dataset.source."
        )
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise UserError(
            f"dataset.source is {path}, a sound file: name the folder with one sub-folder per label"
            " that it belongs to."
        )
    if not path.is_dir():
        verify(path, checksum)
        return unpack(path, paths.DOWNLOADS / f"{name}-unpacked")
    if checksum:
        raise UserError(f"dataset.sha256 is for an archive and {path} is a folder: set it to null.")
    here, audio_here = path.resolve(), paths.AUDIO.resolve()
    if here.is_relative_to(audio_here) or audio_here.is_relative_to(here):
        raise UserError(
            f"dataset.source must be neither {paths.AUDIO} nor a folder inside or around it: move"
            " the recordings elsewhere."
        )
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
