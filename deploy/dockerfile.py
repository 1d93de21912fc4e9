"""Print the Dockerfile as BentoML renders it, for a linter.

    python -m deploy.dockerfile

BentoML writes it into the bento as well, but only when there is a bundle.
"""

from pathlib import Path

import jinja2
from ruamel.yaml import YAML


def render() -> str:
    """Render ``Dockerfile.j2`` with what ``bentofile.yaml`` says."""
    described = YAML(typ="safe").load(Path("bentofile.yaml").read_text(encoding="utf-8"))
    docker = described["docker"]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # no HTML
    template = environment.from_string(Path(docker["dockerfile_template"]).read_text("utf-8"))
    return template.render(
        __base_image__=docker["base_image"],
        __options__env={entry["name"]: entry["value"] for entry in described["envs"]},
        bento__uid_gid=1034,
    )


if __name__ == "__main__":
    print(render())
