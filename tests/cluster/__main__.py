"""The local cluster from a shell: `python -m tests.cluster up | down | binaries | kubelet`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.binaries import BINARIES, obtain
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.kubelet.agent import run_kubelet
from tests.cluster.kubelet.container import Backoff
from tests.cluster.processes import record_path, running_pid, tear_down

_FOR = {
    "cluster": [name for name in BINARIES if name != "helm"],
    "helm": ["helm"],
    "all": list(BINARIES),
}


def main() -> int:
    """Run one verb; the exit code is 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_up(verbs.add_parser("up", help="start a cluster and keep it until Ctrl-C"))
    _add_down(verbs.add_parser("down", help="stop it, and clean up after one that was killed"))
    _add_binaries(verbs.add_parser("binaries", help="find or build the programs and print their paths"))
    _add_kubelet(verbs.add_parser("kubelet", help="one node; `up` starts it for you"))
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
    parser.add_argument("--no-controllers", action="store_true", help="no controllers, no scheduler")
    parser.add_argument("--nodes", type=int, default=1, help="how many (default: 1)")
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
        with Cluster(
            arguments.state, controllers=not arguments.no_controllers, nodes=arguments.nodes
        ) as cluster:
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


def _add_kubelet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", required=True, help="the node's name")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="of system:node:<name>")
    parser.add_argument("--state", type=Path, required=True, help="where pods have their folders")
    for name in ("certificate", "key", "authority"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="PEM file, for `kubectl logs`")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--capacity", action="append", default=[], metavar="RESOURCE=QUANTITY")
    parser.add_argument("--backoff", type=float, default=Backoff.first, help="first pause in seconds")
    parser.add_argument("--backoff-cap", type=float, default=Backoff.cap, help="longest pause in seconds")
    parser.set_defaults(verb=_kubelet)


def _kubelet(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(
        run_kubelet(
            node=arguments.node,
            kubeconfig=arguments.kubeconfig,
            state=arguments.state,
            tls=(arguments.certificate, arguments.key, arguments.authority),
            labels=dict(pair.split("=", 1) for pair in arguments.label),
            capacity=dict(pair.split("=", 1) for pair in arguments.capacity),
            backoff=Backoff(arguments.backoff, arguments.backoff_cap),
        )
    )
    return 0


def _binaries(arguments: argparse.Namespace) -> int:
    for name in _FOR[arguments.purpose]:
        print(f"{name} {obtain(name)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
