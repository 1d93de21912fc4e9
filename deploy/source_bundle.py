"""What Elastic Beanstalk is given: which image, how to run it, and what nginx lets through.

    python -m deploy.source_bundle [--registry HOST]

Leaves ``build/bundle.zip``, the same bytes for the same content, and ``build/smoke/``.
"""

import argparse
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy import config, image, smoke
from deploy.config import Settings
from pipeline import stage
from pipeline.serving.settings import Settings as Limits

FILE = config.BUILD / "bundle.zip"

SPARE = 64 * 1024
"""Bytes that a form needs besides the file: nginx must not refuse what the service takes."""

HOOK = ".platform/hooks/postdeploy/10_ready.sh"


def main(registry: str | None = None) -> str:
    """Write the bundle of the image that was built last.

    Parameters
    ----------
    registry : str, optional
        Where the image was pushed to; without it, the image of this machine.

    Returns
    -------
    str
        The closing line.
    """
    name = image.read_name()
    full = f"{registry}/{name}" if registry else name
    held = files(full, config.load(), Limits())
    write(FILE, held)
    said = smoke.write()
    config.output(label=name.split(":")[1])
    return f"{FILE} with {len(held)} files for {full}; {said}"


def files(name: str, chosen: Settings, limits: Limits) -> dict[str, str]:
    """Content of the bundle by path.

    Parameters
    ----------
    name : str
        Of the image, with registry and tag.
    chosen : Settings
    limits : pipeline.serving.settings.Settings
        Limits of the service.

    Returns
    -------
    dict
    """
    seconds = limits.request_seconds
    return {
        "Dockerrun.aws.json": _json(
            {
                "AWSEBDockerrunVersion": "1",
                "Image": {"Name": name, "Update": "true"},
                "Ports": [{"ContainerPort": 3000}],
            }
        ),
        # JSON is YAML
        ".ebextensions/options.config": _json({"option_settings": options(chosen, seconds)}),
        ".platform/nginx/conf.d/limits.conf": (
            f"client_max_body_size {limits.max_bytes + SPARE};\n"
            # the service gives an answer by then; nginx must not give one before it
            f"proxy_read_timeout {seconds + 5}s;\n"
            f"proxy_send_timeout {seconds + 5}s;\n"
            # a slow client keeps nginx busy, which can bear it, and not the service
            "proxy_request_buffering on;\n"
            "server_tokens off;\n"
        ),
        ".platform/nginx/conf.d/elasticbeanstalk/10_refusal.conf": (
            "error_page 413 @too_large;\n"
            "location @too_large {\n"
            "    default_type application/json;\n"
            f"    return 413 '{refusal(limits)}';\n"
            "}\n"
        ),
        HOOK: (
            "#!/bin/sh\n"
            "# A deployment whose container does not become ready has failed.\n"
            'address="http://127.0.0.1:${NGINX_PORT:-80}/readyz"\n'
            f"for _ in $(seq {chosen.environment.ready_seconds}); do\n"
            '    curl --silent --fail --max-time 5 --output /dev/null "$address" && exit 0\n'
            "    sleep 1\n"
            "done\n"
            f'echo "not ready after {chosen.environment.ready_seconds} s" >&2\n'
            "exit 1\n"
        ),
    }


def refusal(limits: Limits) -> str:
    """Say what the service says of a request that is too large."""
    return json.dumps({"error": limits.too_large})


def options(chosen: Settings, seconds: int) -> dict[str, dict[str, Any]]:
    """Option settings of the environment, by namespace.

    Sources: "General options for all environments" in the developer guide of Elastic Beanstalk.
    """
    environment = chosen.environment
    held: dict[str, dict[str, Any]] = {
        "aws:elasticbeanstalk:application": {"Application Healthcheck URL": "/readyz"},
        "aws:elasticbeanstalk:healthreporting:system": {"SystemType": "enhanced"},
        "aws:elasticbeanstalk:command": {
            "DeploymentPolicy": environment.update,
            "Timeout": str(environment.ready_seconds + 480),
        },
        "aws:elasticbeanstalk:cloudwatch:logs": {
            "StreamLogs": "true",
            "DeleteOnTerminate": "true",
            "RetentionInDays": str(environment.log_days),
        },
        "aws:elasticbeanstalk:managedactions": {
            "ManagedActionsEnabled": "true",
            "PreferredStartTime": "Sun:03:00",
        },
        "aws:elasticbeanstalk:managedactions:platformupdate": {"UpdateLevel": "minor"},
        "aws:ec2:instances": {"InstanceTypes": ",".join(environment.instance_types)},
        "aws:autoscaling:launchconfiguration": {
            "DisableIMDSv1": "true",
            "RootVolumeType": "gp3",
            "RootVolumeSize": "10",
        },
    }
    if environment.load_balanced:
        held |= {
            "aws:autoscaling:asg": {
                "MinSize": str(environment.instances.least),
                "MaxSize": str(environment.instances.most),
            },
            "aws:elbv2:loadbalancer": {"IdleTimeout": str(seconds + 15)},
            "aws:elasticbeanstalk:environment:process:default": {
                "HealthCheckPath": "/readyz",
                "HealthCheckInterval": "15",
                "MatcherHTTPCode": "200",
            },
        }
    return held


def write(file: Path, held: Mapping[str, str]) -> None:
    """Write a zip archive that depends on the content alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(held.items()):
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on whatever system it is written
            entry.external_attr = (0o755 if path.endswith(".sh") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.source_bundle", description=__doc__)
    parser.add_argument("--registry", help="host of the registry that the image was pushed to")
    stage.run("bundle", lambda: main(parser.parse_args().registry))
