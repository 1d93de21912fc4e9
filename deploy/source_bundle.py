"""Write the source bundle for Elastic Beanstalk: the image's name, its settings and nginx's limits.

    python -m deploy.source_bundle [--registry HOST]

Writes ``build/source-bundle.zip``, whose bytes depend only on its content, and ``build/smoke/``.
"""

import argparse
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy import config, image, smoke
from deploy.config import Config
from pipeline import stage
from pipeline.serving.settings import Settings as Limits

FILE = config.BUILD / "source-bundle.zip"

OVERHEAD_BYTES = 64 * 1024
"""Size of a form without its file, in bytes: nginx must let through what the service accepts."""

NGINX_SECONDS, BALANCER_SECONDS = 5, 15
"""How much longer than the service nginx and the load balancer wait, in seconds."""

SERVICE_NAMESPACE = "aws:elasticbeanstalk:application:environment"
"""Namespace of the environment variables that the container gets."""

HOOK = ".platform/hooks/postdeploy/10_ready.sh"

HOOK_SCRIPT = """\
#!/bin/sh
# Fail the deployment if the container does not become ready.
address="http://127.0.0.1:${NGINX_PORT:-80}/readyz"
for _ in $(seq %(seconds)d); do
    curl --silent --fail --max-time 5 --output /dev/null "$address" && exit 0
    sleep 1
done
echo "not ready after %(seconds)d s" >&2
exit 1
"""


def main(registry: str | None = None) -> str:
    """Write the source bundle of the image that was built last, and its smoke test.

    Parameters
    ----------
    registry : str, optional
        Host of the registry that the image was pushed to; by default, the image on this machine.

    Returns
    -------
    str
        The closing line.
    """
    name = image.read_name()
    full = f"{registry}/{name}" if registry else name
    content = files(full, config.load())
    write(FILE, content)
    smoke_line = smoke.write()
    config.output(label=name.split(":")[1])
    return f"{FILE} with {len(content)} files for {full}; {smoke_line}"


def files(name: str, chosen: Config) -> dict[str, str]:
    """Return the content of the source bundle by path.

    Parameters
    ----------
    name : str
        The image's name, with registry and tag.
    chosen : Config
    """
    return {
        "Dockerrun.aws.json": _json(
            {
                "AWSEBDockerrunVersion": "1",
                "Image": {"Name": name, "Update": "true"},
                "Ports": [{"ContainerPort": 3000}],
            }
        ),
        # JSON is YAML
        ".ebextensions/options.config": _json({"option_settings": options(chosen)}),
        HOOK: HOOK_SCRIPT % {"seconds": chosen.environment.ready_seconds},
        **nginx(chosen.limits),
    }


def nginx(limits: Limits) -> dict[str, str]:
    """Return the configuration files of nginx, which follow the limits of the service."""
    seconds = limits.request_seconds + NGINX_SECONDS
    return {
        ".platform/nginx/conf.d/limits.conf": (
            f"client_max_body_size {limits.max_bytes + OVERHEAD_BYTES};\n"
            # longer than the service, which answers a slow request itself
            f"proxy_read_timeout {seconds}s;\n"
            f"proxy_send_timeout {seconds}s;\n"
            # a slow client occupies nginx, which can take it, and not the service
            "proxy_request_buffering on;\n"
            "server_tokens off;\n"
        ),
        ".platform/nginx/conf.d/elasticbeanstalk/10_refusal.conf": (
            "error_page 413 @too_large;\n"
            "location @too_large {\n"
            "    default_type application/json;\n"
            f"    return 413 '{json.dumps({'error': limits.too_large})}';\n"
            "}\n"
        ),
    }


def options(chosen: Config) -> dict[str, dict[str, Any]]:
    """Return the option settings of the environment, by namespace.

    Source: "General options for all environments" in the Elastic Beanstalk Developer Guide.
    """
    environment = chosen.environment
    settings: dict[str, dict[str, Any]] = {
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
    if chosen.service:
        settings[SERVICE_NAMESPACE] = chosen.service_environment
    if environment.load_balanced:
        seconds = chosen.limits.request_seconds + BALANCER_SECONDS
        settings |= {
            "aws:autoscaling:asg": {
                "MinSize": str(environment.instances.least),
                "MaxSize": str(environment.instances.most),
            },
            "aws:elbv2:loadbalancer": {"IdleTimeout": str(seconds)},
            "aws:elasticbeanstalk:environment:process:default": {
                "HealthCheckPath": "/readyz",
                "HealthCheckInterval": "15",
                "MatcherHTTPCode": "200",
            },
        }
    return settings


def write(file: Path, content: Mapping[str, str]) -> None:
    """Write a zip archive whose bytes depend only on its content."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in sorted(content.items()):
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever system writes it
            entry.external_attr = (0o755 if path.endswith(".sh") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m deploy.source_bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--registry", help="host of the registry that the image was pushed to")
    stage.run("source_bundle", lambda: main(parser.parse_args().registry))
