"""The site: built without a warning, complete, and every link leads somewhere, inside."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.params import Params

ROOT = Path(__file__).parents[2]
COPIED = ("crossval", "docs", "dvc.yaml", "mkdocs.yml", "params.yaml", "pipeline")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=folder, env={"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder / "site"


class Links(HTMLParser):
    """What a page names: its anchors, where it leads, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attributes if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.leads.append(values["href"])
        if tag == "link" and values.get("rel") != "canonical":
            self.loads.append(values["href"])
        if "src" in values:
            self.loads.append(values["src"])


def test_every_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(
    site: Path,
) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 12
    broken = []
    for page, links in pages.items():
        for link in links.leads + links.loads:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") and link in links.leads:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            known = target.is_file() and not parts.scheme and not parts.netloc
            if known and parts.fragment and target in pages:
                known = unquote(parts.fragment) in pages[target].anchors
            if not known:
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text(encoding="utf-8"))


def test_every_parameter_is_in_the_reference_with_a_meaning(site: Path) -> None:
    page = (site / "reference" / "parameters.html").read_text(encoding="utf-8")
    rows = dict(re.findall(r"<td><code>([\w.]+)</code></td>(.*?)</tr>", page, re.DOTALL))

    def check(model: type[Params], prefix: str) -> None:
        for name, field in model.model_fields.items():
            key = f"{prefix}{field.alias or name}"
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{key}.")  # type: ignore[arg-type]
            else:
                *_, meaning = re.findall(r"<td.*?>(.*?)</td>", rows[key], re.DOTALL)
                assert meaning.strip(), key

    check(Params, "")
    assert "whole number" in rows["train.epochs"]
    assert "≥ 1" in rows["train.epochs"]


def test_every_module_is_in_the_reference(site: Path) -> None:
    shown: set[str] = set()
    for page in (site / "reference").glob("*.html"):
        shown |= Links(page).anchors
    for module in (ROOT / "pipeline").rglob("[!_]*.py"):
        name = ".".join(module.relative_to(ROOT).with_suffix("").parts)
        assert name in shown
    assert "pipeline.sound.features.extract" in shown
