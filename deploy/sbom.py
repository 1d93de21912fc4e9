"""List the Python packages, Debian packages and model of an image as a CycloneDX SBOM."""

import json
from typing import Any

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from deploy import engine

LIST = """
import importlib.metadata as m, json
print(json.dumps(sorted({(d.name, d.version) for d in m.distributions()})))
"""


def of_image(image: str, card: dict[str, Any]) -> str:
    """Return the software bill of materials of an image, read from the image itself.

    Parameters
    ----------
    image : str
    card : dict
        Card of the model in the image.

    Returns
    -------
    str
        CycloneDX 1.6 as JSON.
    """
    run = ("run", "--rm", "--network", "none", "--entrypoint")
    python = json.loads(engine.run(*run, "python", image, "-c", LIST).splitlines()[-1])
    query = "--showformat=${Package} ${Version} ${Architecture}\\n"
    debian = engine.run(*run, "dpkg-query", image, "--show", query).splitlines()
    model = Component(
        bom_ref=f"{card['name']}@{card['version']}",
        name=card["name"],
        version=str(card["version"]),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        properties=[Property(name=key, value=value) for key, value in card["lineage"].items()],
    )
    packages = [_component("pypi", None, name, version) for name, version in python]
    packages += [
        _component("deb", "debian", name, version, arch=architecture)
        for name, version, architecture in (line.split() for line in debian)
    ]
    bom = Bom(components=[model, *packages])
    container = Component(name=image, type=ComponentType.CONTAINER, bom_ref=image)
    bom.metadata.component = container
    bom.register_dependency(container, [model, *packages])
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _component(
    kind: str, namespace: str | None, name: str, version: str, **qualifiers: str
) -> Component:
    purl = PackageURL(kind, namespace, name, version, qualifiers or None)
    return Component(name=name, version=version, purl=purl, bom_ref=purl.to_string())
