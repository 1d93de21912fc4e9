"""Push the image to Elastic Container Registry (ECR), and read the findings of ECR's scan."""

import contextlib
from typing import Any

from deploy import api, config, engine, image
from pipeline.errors import UserError


def push(registry: str) -> str:
    """Push the image that was built last, unless the registry already has its tag.

    Tags are immutable: the same tag always means the same image.
    """
    name = image.read_name()
    full = f"{registry}/{name}"
    if _has(*name.split(":")):
        return f"{full} is already in the registry"
    engine.run("tag", name, full)
    engine.run("push", full)
    return f"{full} pushed"


def scan() -> str:
    """Wait for ECR's scan of the image that was built last, and reject grave findings.

    Raises
    ------
    UserError
        If there are findings of a severity in ``scan.refuse``, or if the scan does not finish.
    """
    repository, tag = image.read_name().split(":")
    scanned = api.poll(
        lambda: _finished_scan(repository, tag), f"the scan of {repository}:{tag} did not finish"
    )
    counts = scanned["imageScanFindings"].get("findingSeverityCounts", {})
    findings = ", ".join(f"{count} {severity}" for severity, count in sorted(counts.items()))
    if any(counts.get(severity) for severity in config.load().scan.refuse):
        raise UserError(
            f"{repository}:{tag} has findings: {findings}; update requirements-service.lock or the"
            " base image, or change scan.refuse in deploy/config.yaml."
        )
    return f"{repository}:{tag}: {findings or 'no'} findings"


def _finished_scan(repository: str, tag: str) -> dict[str, Any] | None:
    """Return the finished scan of an image; if there is none yet, start one and return None."""
    ecr = api.client("ecr")
    which = {"repositoryName": repository, "imageId": {"imageTag": tag}}
    try:
        findings: dict[str, Any] = ecr.describe_image_scan_findings(**which)
    except ecr.exceptions.ScanNotFoundException:
        # The push starts a scan, which may not be listed yet; ECR allows one scan per day.
        with contextlib.suppress(ecr.exceptions.LimitExceededException):
            ecr.start_image_scan(**which)
        return None
    status = findings["imageScanStatus"]["status"]
    if status in ("FAILED", "UNSUPPORTED_IMAGE"):
        raise UserError(f"ECR could not scan {repository}:{tag}: {status}.")
    return findings if status in ("COMPLETE", "ACTIVE") else None


def _has(repository: str, tag: str) -> bool:
    ecr = api.client("ecr")
    try:
        ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except ecr.exceptions.ImageNotFoundException:
        return False
    return True
