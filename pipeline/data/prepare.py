"""Stage 1: bring a dataset here, keep the clips that can be used, say what they are."""

import hashlib
import json
import math
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import pandas as pd
from tqdm.auto import tqdm

from pipeline import paths
from pipeline.data.datasets import Dataset, foley
from pipeline.data.fetch import fetch, unpack, verify
from pipeline.errors import UserError
from pipeline.params import DatasetParams, FoleyParams
from pipeline.sound import decoding

SILENCE = 1e-4
"""Peak below which a clip is silent: 80 dB below full scale, three steps of 16 bits."""

MEASURED = ["seconds", "sample_rate", "channels", "subtype"]

Origin = Literal["published", "generated", "local"]


def usual_seconds(seconds: pd.Series) -> float:
    """Choose a clip length that holds nine clips of ten whole.

    Parameters
    ----------
    seconds : Series of float
        Of every clip.

    Returns
    -------
    float
        In seconds, rounded up to a tenth; from 1, which a network needs, to 10, for a few long
        recordings should not make all clips long.
    """
    most = math.ceil(seconds.quantile(0.9, interpolation="lower") * 10) / 10
    return float(min(max(most, 1.0), 10.0))


def find(dataset: Dataset, settings: DatasetParams) -> tuple[Path, Origin]:
    """Bring the dataset here, if it is not here yet.

    Parameters
    ----------
    dataset : Dataset
        Which.
    settings : DatasetParams
        Section ``dataset``.

    Returns
    -------
    Path
        The folder that holds it, perhaps inside one more folder.
    {'published', 'generated', 'local'}
        Where it came from.

    Raises
    ------
    UserError
        When it is missing, cannot be downloaded or cannot be unpacked.
    """
    source = settings.source
    if source is None and dataset.archive is not None:
        published = dataset.archive
        path = fetch(published.url, published.checksum, paths.DOWNLOADS, published.file_name)
        return unpack(path, paths.DOWNLOADS / dataset.name), "published"
    if source is None and dataset.name == "foley":
        return generate(settings.foley), "generated"
    if source is None:
        source = str(paths.SOUNDS)

    checksum = settings.sha256 and f"sha256:{settings.sha256}"
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
            f"{path} is missing: put one sub-folder a label there, or correct dataset.source."
        )
    if not path.is_dir():
        verify(path, checksum)
        return unpack(path, paths.DOWNLOADS / f"{name}-unpacked"), "local"
    if checksum:
        raise UserError(f"dataset.sha256 is for an archive and {path} is a folder: set it to null.")
    here, audio_here = path.resolve(), paths.AUDIO.resolve()
    if here.is_relative_to(audio_here) or audio_here.is_relative_to(here):
        raise UserError(f"dataset.source must not be, hold or lie in {paths.AUDIO}: move it away.")
    return path, "local"


def generate(settings: FoleyParams) -> Path:
    """Generate the embedded dataset, unless the same was generated before.

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


def measure(root: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every clip once and sort out what cannot be used.

    Parameters
    ----------
    root : Path
        Folder of the clips.
    table : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` gives it.

    Returns
    -------
    clips : DataFrame
        The usable rows, with ``seconds``, ``sample_rate`` (Hz), ``channels`` and ``subtype``.
    rejected : DataFrame
        ``path`` and ``reason`` of the others.
    """

    def one(clip: tuple[str, bool]) -> dict[str, Any]:
        path, labelled = clip
        if not labelled:
            return {"reason": "The clip has no label."}
        if not (root / path).is_file():
            return {"reason": "The file is missing."}
        try:
            info = decoding.probe(root / path)
        except decoding.AudioError as error:
            return {"reason": str(error)}
        if info.peak < SILENCE:
            return {"reason": "The clip is silent."}
        return {name: getattr(info, name) for name in MEASURED}

    clips = list(zip(table["path"], table["label"].notna(), strict=True))
    with ThreadPool() as pool:
        bar = tqdm(pool.imap(one, clips), "check", len(clips), unit="clip", disable=None)
        found = pd.DataFrame(list(bar), columns=["reason", *MEASURED], index=table.index)
    usable = found["reason"].isna()
    rejected = table[["path"]].join(found["reason"])[~usable]
    kept = table.join(found[MEASURED].round({"seconds": 6}))[usable]
    return kept.astype({"fold": int, "sample_rate": int, "channels": int}), rejected


def materialise(root: Path, files: list[str]) -> None:
    """Put the clips into the stage's output folder, and nothing else.

    Parameters
    ----------
    root : Path
        Folder of the clips.
    files : list of str
        POSIX paths relative to `root`; they stay the same.
    """
    if paths.AUDIO.exists():
        shutil.rmtree(paths.AUDIO)
    ours = root.resolve().is_relative_to(paths.DOWNLOADS.resolve())
    for file in tqdm(files, "copy", unit="clip", disable=None):
        target = paths.AUDIO / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if ours:  # nobody edits what was downloaded, so a link is as good as a copy
            try:
                target.hardlink_to(root / file)
                continue
            except OSError:
                ours = False
        shutil.copyfile(root / file, target)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write values as JSON."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
