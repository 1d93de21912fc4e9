"""Run the project's commands in new processes in which the libraries are already loaded.

Importing TensorFlow and MLflow takes several seconds of processor time, and the end-to-end tests
start some hundred commands. So one process imports the libraries once and forks for each command.
It never imports the project, because every clone has its own copy of that code. Each command runs
in a new process and shares no state with other commands. The tests put a script called ``python``
first on the path: it asks for such a process if it is called as ``python -m pipeline``, and
otherwise starts Python itself.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

LIBRARIES = (
    "bentoml.bentos",
    "librosa.feature",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tensorflow",
    "optuna.storages._rdb.storage",
    "pandas",
    "psutil",
    "ruamel.yaml",
    "scipy.signal",
    "sklearn.metrics",
    "soundfile",
    "tensorflow",
    "tqdm.auto",
)

CLIENT = """\
#!{python} -IS
import os, sys

if sys.argv[1:3] != ["-m", "pipeline"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])

import json, socket

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"!"], [0, 1, 2])
    call = [sys.argv[3:], os.getcwd(), dict(os.environ)]
    server.sendall(json.dumps(call).encode() + b"\\n")
    sys.exit(int(server.makefile().read() or "1"))
"""


class Warm(NamedTuple):
    """The process with the libraries."""

    path: Path
    """Folder to put on the path; it contains the script ``python``."""
    process: "subprocess.Popen[bytes]"


@functools.cache
def start() -> Warm:
    """Start the process that imports the libraries, only once; it ends when this process ends."""
    made = Path(tempfile.mkdtemp(prefix="warm-"))  # a socket's path has to be short
    address = made / "socket"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(address))
    listening.listen(64)
    with (made / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno()), str(made)],
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,  # it ends when this is closed, however this process ends
            stdout=log,
            stderr=log,
        )
    listening.close()
    client = made / "bin" / "python"
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    return Warm(client.parent, process)


def serve(listening: socket.socket, folder: Path) -> list[str]:
    """Fork for each call and return in the new process, set up as its caller is.

    Returns
    -------
    list of str
        The arguments after ``python -m pipeline``.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended processes need no wait()
    while True:
        ready, _, _ = select.select([listening.fileno(), 0], [], [])
        if 0 in ready:  # the standard input is closed: the tests have ended
            shutil.rmtree(folder)
            sys.exit()
        connection, _ = listening.accept()
        if os.fork() == 0:
            break
        connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listening.close()
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    arguments, place, environment = json.loads(connection.makefile().readline())
    command = os.fork()
    if command:
        _report(command, connection)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = place
    return list(arguments)


def _report(command: int, connection: socket.socket) -> None:
    """Send the command's exit status to the caller; kill the command if the caller is gone."""
    ended = os.pidfd_open(command)
    ready, _, _ = select.select([ended, connection.fileno()], [], [])
    if ended not in ready:  # the caller has hung up: it was killed
        os.kill(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    with contextlib.suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # so that the processes go on sharing this memory
    given = serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
    sys.argv = ["pipeline", *given]
    runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
