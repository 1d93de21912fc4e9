"""The documentation builds without a warning, is complete, and loads nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.params import Params
from tests.code.test_layout import FLOORS

ROOT = Path(__file__).parents[2]
SOURCES = ("crossval/dvc.yaml", "docs", "dvc.yaml", "params.yaml", "pipeline")
README_WORDS = 1200


def tracked() -> list[str]:
    """Files that the documentation is made of and that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources in which the site has been built, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("docs")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    build = "-m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs site"
    for command in (["docs/generate.py"], build.split()):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> Path:
    return built / "site"


class Links(HTMLParser):
    """The anchors of a page, the links on it, and the files that it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attributes if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") != "canonical":
            self.loads.append(values["href"])
        if "src" in values:
            self.loads.append(values["src"])


def test_every_link_of_the_site_works_and_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html")}
    assert len(pages) > 12
    broken = []
    for page, links in pages.items():
        for link in links.links + links.loads:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") and link in links.links:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            known = target.is_file() and not parts.scheme and not parts.netloc
            if known and parts.fragment and target in pages:
                known = unquote(parts.fragment) in pages[target].anchors
            if not known:
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8"))


def test_every_parameter_is_in_the_reference_with_a_meaning(site: Path) -> None:
    page = (site / "reference" / "parameters.html").read_text(encoding="utf-8")
    text = re.sub(r"</?(?:p|code|span)\b[^>]*>", "", page)
    rows = dict(re.findall(r"<td>([\w.]+)</td>(.*?)</tr>", text, re.DOTALL))

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


def test_the_reference_names_every_module_once_on_the_page_of_its_suite() -> None:
    named = {
        name: page.stem
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^\.\. automodule:: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    }
    pages = {"stages": "stage-modules"}
    expected = {}
    for module in (ROOT / "pipeline").rglob("*.py"):
        parts = module.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        suite = parts[1] if len(parts) > 2 else "ground-floor"
        if module.name != "__init__.py" or len(parts) > 3:
            expected[name] = pages.get(suite, suite)
    assert named == expected


def test_the_architecture_page_has_the_floors_that_the_imports_are_tested_for() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)/`", page, re.MULTILINE)
    assert {suite: int(number) - 1 for number, suite in rows} == {
        suite: number for number, suites in enumerate(FLOORS) for suite in suites
    }


def test_the_reference_shows_functions(site: Path) -> None:
    assert "pipeline.sound.features.extract" in Links(site / "reference" / "sound.html").anchors


def test_the_diagram_in_git_is_the_one_that_the_pipeline_gives(built: Path) -> None:
    drawn = built / "docs" / "images" / "flow.svg"
    assert drawn.read_text() == (ROOT / "docs" / "images" / "flow.svg").read_text()


def test_the_readme_is_short_and_its_links_lead_to_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.split()) <= README_WORDS
    links = re.findall(r"\]\(([^)#]+)", readme)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []
