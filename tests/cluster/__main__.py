"""The local cluster from a shell: `python -m tests.cluster up | down | binaries | kubelet`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.binaries import BINARIES, obtain
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.processes import record_path, running_pid, tear_down

_FOR = {
    "cluster": [name for name in BINARIES if name != "helm"],
    "helm": ["helm"],
    "all": list(BINARIES),
}


def main() -> int:
    """Run one verb; the exit code is 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.set_defaults(verb=lambda _: parser.print_help() or 0)
    verbs = parser.add_subparsers(title="verbs")
    _add_up(verbs.add_parser("up", help="start a cluster and keep it until Ctrl-C"))
    _add_down(verbs.add_parser("down", help="stop it, and clean up after one that was killed"))
    _add_binaries(verbs.add_parser("binaries", help="find or build the programs and print their paths"))
    arguments = parser.parse_args()
    try:
        code: int = arguments.verb(arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def _default_state() -> Path:
    return Path(tempfile.gettempdir()) / f"dormouse-up-{os.getuid()}"


def _add_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=_default_state(), help="default: %(default)s")
    parser.add_argument("--no-controllers", action="store_true", help="API server and etcd only")
    parser.set_defaults(verb=_up)


def _add_down(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=_default_state(), help="default: %(default)s")
    parser.set_defaults(verb=_down)


def _add_binaries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="purpose", choices=_FOR, default="cluster", help="default: %(default)s")
    parser.set_defaults(verb=_binaries)


def _up(arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Cluster(arguments.state, controllers=not arguments.no_controllers) as cluster:
            print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
            print("the cluster stays up until Ctrl-C", file=sys.stderr, flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _down(arguments: argparse.Namespace) -> int:
    owner = running_pid(record_path(arguments.state, "harness"))
    if owner is not None:
        os.kill(owner, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while running_pid(record_path(arguments.state, "harness")) and time.monotonic() < deadline:
            time.sleep(0.1)
    killed = tear_down(arguments.state)
    print(f"killed {len(killed)} leftover processes" if killed else "nothing is left running")
    return 0


def _binaries(arguments: argparse.Namespace) -> int:
    for name in _FOR[arguments.purpose]:
        print(f"{name} {obtain(name)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
