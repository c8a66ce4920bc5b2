"""What a sleeping engine leaves on the device, cut by cut: bytes, whose they are, and what a cut costs.

``` shell
PYTHONPATH=engine_image:$PYTHONPATH python -m benchmarks.residual --out results
```

Each choice of cuts is a process: `stock` (vLLM's own allocator), `none`, one cut alone, several as `buffers+stack`,
`all`, and `all-stack` for all but one. Eager ones have few layers, because layers change nothing there; those with
graphs have all, because every layer has graphs. Writes `residual.json`: per choice the device's used bytes (with a bare
context, awake, asleep), torch's segments outside the pool by the place that allocated them, seconds of the first and
later sleeps, of wakes at once and after a pause, and of answers before any sleep and after each wake. A process that
does not run on the allocator that its choice names ends with an error.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import children, environment, inside
from benchmarks.common.engine import Setting
from benchmarks.common.machine import command_line, machine
from benchmarks.common.record import write
from benchmarks.common.say import GIB, gib, say
from benchmarks.common.shapes import QWEN3_32B, prompts
from dormouse_engine.plugin.cuts import CUTS

EAGER = ("stock", "none", "buffers", "workspaces", "scratch", "sampling", "stack", "all")
GRAPHS = ("stock", "none", "graphs", "stack", "all")
CYCLES = 4
"""Every second one with a pause before the wake: at once the device still clears what the sleep released."""
PAUSE_SECONDS = 0.5
ANSWERS = 5
SEED = 7
NOT_A_PLACE = ("/torch/", "/contextlib.py", "/benchmarks/", "/dormouse_")


def main() -> int:
    """Run every choice, or be the process of one; returns 1 where one failed or answered otherwise after a wake."""
    options = argparse.ArgumentParser(prog="benchmarks.residual", description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--eager", type=choices, default=",".join(EAGER), help="choices without graphs")
    options.add_argument("--graphs", type=choices, default=",".join(GRAPHS), help="choices with graphs")
    options.add_argument("--layers", type=int, default=4, help="of the eager ones")
    options.add_argument("--graph-layers", type=int, default=QWEN3_32B.layers)
    options.add_argument(
        "--kv-gib", type=float, default=8, help="over all layers; segments of 64 MiB are kept"
    )
    options.add_argument("--seconds", type=float, default=550, help="start no process after this")
    options.add_argument("--one", help=argparse.SUPPRESS)
    options.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.one:
        record: dict[str, Any] = {}
        try:
            measure(given, given.one.startswith("graphs "), record)
        finally:
            write(given.scratch / "one.json", record)
        return 0
    told: dict[str, Any] = {}
    (given.out / "logs").mkdir(exist_ok=True)
    head = {"row": "residual", "command": command_line(), "machine": machine()}
    wanted = [f"eager {name}" for name in given.eager] + [f"graphs {name}" for name in given.graphs]
    with tempfile.TemporaryDirectory(prefix="dormouse-residual-") as scratch:
        for choice in wanted:
            late = time.monotonic() - BEGIN > given.seconds
            told[choice] = {"error": "no time"} if late else run(choice, given.out / "logs", Path(scratch))
            write(given.out / "residual.json", {**head, "choices": told})
    failed = [choice for choice in wanted if not right(told[choice])]
    say(f"== residual: {json.dumps({'failed': failed})}")
    return 1 if failed else 0


def right(told: dict[str, Any]) -> bool:
    """Whether a choice's process came to its end, with the same answer every time."""
    answers = told.get("same answer", [])
    return told.get("exit") == 0 and len(answers) == (CYCLES + 1) * ANSWERS and all(answers)


def run(choice: str, logs: Path, scratch: Path) -> dict[str, Any]:
    """Be the parent of one choice's process; returns what it wrote and how it ended."""
    say(f"== {choice}")
    named = choice.split()[1]
    one = scratch / "one.json"
    one.unlink(missing_ok=True)
    variables = environment.for_engine("stock" if named == "stock" else "dormouse", scratch, rehearsal=False)
    variables["DORMOUSE_RESIDUAL"] = cuts(named)
    command = [sys.executable, "-m", "benchmarks.residual", *sys.argv[1:]]
    command += ["--one", choice, "--scratch", str(scratch)]
    ended = children.run(command, variables, logs / f"residual-{choice.replace(' ', '-')}.log", 180)
    try:
        written = json.loads(one.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        written = {}
    return {**written, **ended}


def choices(text: str) -> list[str]:
    """Read choices with commas between; raises ArgumentTypeError for what is none."""
    cut = f"({'|'.join(CUTS)})"
    named = [choice for choice in text.split(",") if choice]
    for choice in named:
        if not re.fullmatch(rf"stock|none|{cut}(\+{cut})*|all(-{cut})*", choice):
            raise argparse.ArgumentTypeError(
                f"{choice!r} is no choice: say stock, none, cuts with + between, all, or all with -CUT behind; "
                f"cuts are {', '.join(CUTS)}"
            )
    return named


def cuts(choice: str) -> str:
    """Return what DORMOUSE_RESIDUAL is for a choice."""
    first, *without = choice.split("-")
    if first != "all":
        return "none" if first == "stock" else first.replace("+", ",")
    return ",".join(cut for cut in CUTS if cut not in without)


def measure(given: argparse.Namespace, graphs: bool, record: dict[str, Any]) -> None:  # noqa: FBT001 - one of two modes
    """Start the engine, sleep and wake, and note everything in `record`."""
    torch = importlib.import_module("torch")
    torch.cuda.init()
    record["used by a bare context"] = used(torch)
    torch.cuda.memory._record_memory_history("state", stacks="python")  # noqa: SLF001 - there is no other
    shape = QWEN3_32B.with_layers(given.graph_layers if graphs else given.layers)
    model = shape.write(given.scratch / shape.name)
    setting = Setting(shape=shape, model=model, kv_bytes=int(given.kv_gib * GIB), graphs=graphs)
    vllm = importlib.import_module("vllm")
    engine = vllm.LLM(**setting.arguments())
    record["allocator"] = check_allocator(os.environ["DORMOUSE_ALLOCATOR"])
    engine.collective_rpc(inside.refill, args=(SEED,))
    record |= {"vllm": vllm.__version__, "torch": torch.__version__, "device": torch.cuda.get_device_name()}
    asked = [{"prompt_token_ids": each} for each in prompts(shape.vocabulary, 8, 128)]
    greedy = vllm.SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True, detokenize=False)
    # Some sampled ones too, so that the sampler has made all its buffers.
    sampled = vllm.SamplingParams(temperature=0.8, top_k=50, top_p=0.9, max_tokens=4, detokenize=False)

    def answer() -> list[list[int]]:
        return [list(each.outputs[0].token_ids) for each in engine.generate(asked, greedy, use_tqdm=False)]

    engine.generate(asked, sampled, use_tqdm=False)

    def answers() -> list[float]:
        """Answer several times, each time as before any sleep; returns seconds of each."""
        begun = time.perf_counter()
        seconds = []
        for _ in range(ANSWERS):
            same = answer() == expected
            record["same answer"].append(same)
            seconds.append((now := time.perf_counter()) - begun)
            begun = now
        return seconds

    expected = answer()
    record |= {
        "sleep": [],
        "wake at once": [],
        "wake after a pause": [],
        "transitions": [],
        "same answer": [],
    }
    record |= {"awake": inside.reading(None), "answers": [answers()]}
    for cycle in range(CYCLES):
        record["sleep"].append(timed(torch, lambda: engine.sleep(level=1)))
        if cycle == 0:
            record["asleep"] = inside.reading(None)
            record["outside the pool"] = outside(torch)
            report(record)
        if cycle % 2:
            time.sleep(PAUSE_SECONDS)
        wakes = record["wake after a pause" if cycle % 2 else "wake at once"]
        wakes.append(timed(torch, engine.wake_up))
        record["transitions"].append(inside.transition(None))
        record["answers"].append(answers())
    engine.sleep(level=1)
    record["asleep at the end"] = inside.reading(None)
    say(
        " ".join(
            f"{each}={record[each]}" for each in ("sleep", "wake at once", "wake after a pause", "answers")
        )
    )


def check_allocator(wanted: str) -> str:
    """Return the name of the allocator that serves; raises RuntimeError where it is not the one that was asked for."""
    kind = importlib.import_module("vllm.device_allocator.cumem").CuMemAllocator
    serving = "stock" if getattr(kind.get_instance(), "pool", None) is None else "dormouse"
    if serving != wanted:
        raise RuntimeError(
            f"this engine runs on the allocator {serving}, not {wanted}: its figures would lie"
        )
    return serving


def used(torch: Any) -> int:
    """Return the bytes of the device that anybody uses."""
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def outside(torch: Any) -> dict[str, Any]:
    """Return the bytes that torch holds outside any sleeping pool: used ones by place, and those that nobody uses."""
    allocator = importlib.import_module("vllm.device_allocator.cumem").CuMemAllocator.get_instance()
    pool = getattr(allocator, "pool", None)
    sleeping = set(getattr(allocator, "pointer_to_data", ()))
    places: collections.Counter[str] = collections.Counter()
    unused = segments = 0
    for segment in torch.cuda.memory_snapshot():
        if segment["address"] in sleeping or (pool is not None and in_pool(pool, segment["address"])):
            continue
        segments += segment["total_size"]
        for block in segment["blocks"]:
            if block["state"] == "inactive":
                unused += block["size"]
            else:
                places[place(block.get("frames", []))] += block["size"]
    return {"segments": segments, "unused": unused, "places": dict(places.most_common(25))}


def in_pool(pool: Any, address: int) -> bool:
    """Tell whether `address` begins one of the pool's segments."""
    try:
        return bool(pool.size_of(address))
    except ValueError:
        return False


def place(frames: list[dict[str, Any]]) -> str:
    """Name the innermost frames that are nobody's plumbing."""
    known = [each for each in frames if not any(part in each["filename"] for part in NOT_A_PLACE)]
    shown = [f"{'/'.join(Path(each['filename']).parts[-2:])}:{each['line']} {each['name']}" for each in known]
    return " < ".join(shown[:3]) or "unknown"


def timed(torch: Any, action: Any) -> float:
    """Do it between idle devices; returns seconds."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def report(record: dict[str, Any]) -> None:
    """Print what one looks for first."""
    left = record["outside the pool"]
    say(
        f"asleep {gib(record['asleep']['device']['used'])}, bare context {gib(record['used by a bare context'])}, "
        f"torch outside {gib(left['segments'])} of which unused {gib(left['unused'])}"
    )
    for where, size in left["places"].items():
        say(f"    {size / 2**20:8.1f} MiB {where}")


BEGIN = time.monotonic()
if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an engine that sleeps is not taken apart
