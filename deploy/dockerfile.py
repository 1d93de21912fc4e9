"""Print the Dockerfile that BentoML would render, for a linter.

    python -m deploy.dockerfile

BentoML itself renders it only when it builds a bento, which needs a bundle.
"""

from pathlib import Path

import jinja2
from ruamel.yaml import YAML

from pipeline.serving.settings import PROCESS_ENVIRONMENT


def render() -> str:
    """Render ``Dockerfile.j2`` with the base image of ``bentofile.yaml``."""
    bentofile = YAML(typ="safe").load(Path("bentofile.yaml").read_text(encoding="utf-8"))
    docker = bentofile["docker"]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # no HTML
    template = environment.from_string(Path(docker["dockerfile_template"]).read_text("utf-8"))
    return template.render(
        __base_image__=docker["base_image"],
        __options__env=PROCESS_ENVIRONMENT,
        bento__uid_gid=1034,
    )


if __name__ == "__main__":
    print(render())
