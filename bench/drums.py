"""Make a second dataset of real recordings from the drum sounds of a Debian package.

``python -m bench.drums TO [--package DIRECTORY]`` arranges the kits of ``hydrogen-drumkits`` as a
`folder` dataset in the new folder TO. It has five kinds of drum, labelled by the names that the
kits give their instruments; other instruments are left out. Each kit counts as one recording,
because its sounds share drummer, drums and microphones. So no kit is in two folds.

Then run ``python -m bench.quality ours --dataset folder --source TO``.
"""

import argparse
import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pipeline.data.datasets import folder

PACKAGE = Path("/usr/share/hydrogen/data/drumkits")
KINDS = {
    "hat": r"hat|\bhh\b",
    "snare": r"snare|\bs[nd]\b",
    "tom": r"\btom|floor",
    "cymbal": r"crash|ride|china|splash|cymbal",
    "kick": r"kick|bass ?drum|\bbd\b",
}
"""Regular expression for the instrument's name by kind of drum; the first match counts."""


def main() -> None:
    """Arrange the kits and print the number of sounds of each kind."""
    parser = argparse.ArgumentParser(description="Arrange hydrogen-drumkits as a folder dataset.")
    parser.add_argument("to", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="where the kits are")
    options = parser.parse_args()
    kits = sorted(options.package.glob("*/drumkit.xml"))
    if not kits:
        parser.error(f"no kits in {options.package}: apt-get install hydrogen-drumkits")
    if options.to.exists():
        parser.error(f"{options.to} exists already")
    rows = []
    for kit in kits:
        for kind, file in sounds(kit):
            path = Path(kind, kit.parent.name, file.name)
            (options.to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, options.to / path)
            rows.append((path.as_posix(), kind, kit.parent.name))
    with (options.to / folder.TABLE).open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows([("path", "label", "recording"), *rows])
    for kind in KINDS:
        print(f"{kind}: {sum(row[1] == kind for row in rows)}")


def sounds(kit: Path) -> Iterator[tuple[str, Path]]:
    """Yield kind and file of each sound of a kit that has one of the kinds, each file once."""
    tree = ElementTree.parse(kit)  # the package's own files
    listed = set()
    for instrument in tree.iterfind(".//{*}instrument"):
        called = (instrument.findtext("{*}name") or "").lower()
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, called)), None)
        for element in instrument.iterfind(".//{*}filename"):
            file = kit.parent / (element.text or "")
            if kind and file.is_file() and file not in listed:
                listed.add(file)
                yield kind, file


if __name__ == "__main__":
    main()
