"""Run the source bundle on this machine: its image, behind nginx with the bundle's settings.

python -m deploy.local [--port PORT]
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from deploy import engine, source_bundle
from pipeline import tables
from pipeline.errors import UserError

# The relevant part of the nginx configuration of Elastic Beanstalk's Docker platform: where it
# includes the bundle's files, and the timeouts of its server.
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    default_type application/octet-stream;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {source}/.platform/nginx/conf.d/*.conf;
    map $http_upgrade $connection_upgrade {{ default "upgrade"; }}
    server {{
        listen 127.0.0.1:{port};
        client_header_timeout 60;
        client_body_timeout 60;
        keepalive_timeout 60;
        gzip on;
        include {source}/.platform/nginx/conf.d/elasticbeanstalk/*.conf;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


@contextlib.contextmanager
def deployed(archive: Path, port: int) -> Iterator[str]:
    """Run a source bundle as an instance of Elastic Beanstalk does.

    Parameters
    ----------
    archive : Path
        The source bundle.
    port : int
        Port on this machine for nginx.

    Yields
    ------
    str
        Its address, after the bundle's hooks have run.

    Raises
    ------
    UserError
        If the bundle or nginx is missing, if the port is in use, or if a hook fails.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        raise UserError("nginx is not installed: on Debian, `apt-get install nginx-light`.")
    if not archive.is_file():
        raise UserError(f"{archive} is missing: make it with `make eb-bundle`.")
    if not _is_free(port):
        raise UserError(f"port {port} is in use: choose another, `make deploy-local PORT=8081`.")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # nginx's worker is another user
        source = folder / "source"
        unpack(archive, source)
        upstream = _free_port()
        run = tables.read_json(source / "Dockerrun.aws.json")
        container = engine.start(run["Image"]["Name"], upstream, container_options(source))
        stack.callback(engine.run, "rm", "--force", container)
        stack.callback(engine.run, "stop", "--time", "10", container)
        configuration = NGINX.format(folder=folder, source=source, port=port, upstream=upstream)
        (folder / "nginx.conf").write_text(configuration, encoding="utf-8")
        server = subprocess.Popen(  # noqa: S603
            [nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        _run_hooks(source, port, container)
        yield f"http://127.0.0.1:{port}"


def container_options(source: Path) -> list[str]:
    """Return the options of ``run``: the limits of a small machine, and the service's settings."""
    options = tables.read_json(source / ".ebextensions" / "options.config")["option_settings"]
    variables = options.get(source_bundle.SERVICE_NAMESPACE, {})
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    return [*engine.CONFINED, *given]


def _run_hooks(source: Path, port: int, container: str) -> None:
    """Run the hooks that follow a deployment; raise UserError if one fails."""
    for hook in sorted((source / ".platform" / "hooks" / "postdeploy").iterdir()):
        environment = {**os.environ, "NGINX_PORT": str(port)}
        done = subprocess.run(  # noqa: S603  # the bundle's own
            [hook], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            log = engine.run("logs", "--tail", "5", container)
            raise UserError(f"the hook {hook.name} failed: {done.stderr.strip()}. {log}")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a source bundle; unlike ``extractall``, keep scripts executable."""
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            extracted = Path(opened.extract(entry, folder))
            extracted.chmod((entry.external_attr >> 16) & 0o777 or 0o644)


def _is_free(port: int) -> bool:
    """Whether no program listens: the hook would take its response for the bundle's."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(port: int) -> None:
    """Run the source bundle until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), deployed(source_bundle.FILE, port) as address:
        print(f"the source bundle runs on {address}; stop it with Ctrl-C", flush=True)
        signal.pause()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="port for nginx")
    try:
        main(parser.parse_args().port)
    except UserError as error:
        sys.exit(f"local: error: {error}")
