"""`python -m tests.demo`: the live demo. `--once`: the fixed script, JSON in its last line, exit 0 only if seen."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

from rich.live import Live

from tests.cluster.errors import ClusterError
from tests.demo.stage import DemoError, Stage
from tests.demo.story import Story
from tests.demo.view import View


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="a fixed script without a terminal, then exit")
    once = parser.parse_args().once
    begun = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {line}", flush=True)

    tell("starting etcd, kube-apiserver, controllers, a node and the operator …")
    try:
        with Stage() as stage:
            tell("a real Kubernetes is up: " + "; ".join(stage.shell_lines()))
            if once:
                print(json.dumps(Story(stage, tell).play()), flush=True)
            else:
                _play_on(stage)
    except (DemoError, ClusterError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _play_on(stage: Stage) -> None:
    """Show the stage and send a request now and then, until Ctrl-C."""
    story = Story(stage)
    view = View(stage, story)
    story.tell = view.log
    stage.apply_models()
    next_request = time.monotonic()
    with Live(view.draw(), refresh_per_second=4, screen=False) as live:
        while True:
            live.update(view.draw())
            serving = stage.serving()
            if time.monotonic() >= next_request and serving:
                model = random.choice(serving)
                seconds = story.ask(model)
                view.log(f"{time.strftime('%H:%M:%S')}  {model}: answered after {seconds * 1000:.0f} ms")
                next_request = time.monotonic() + random.uniform(0.5, 4)
            time.sleep(0.25)


if __name__ == "__main__":
    sys.exit(main())
