"""A stand-in engine: vLLM's HTTP with a real memory arena, its real oddities, and faults on demand.

It serves tests, the demo and users without a GPU. The rooms, from the outside in:

* `server` one process: signals, uvicorn, exit codes; `swarm` many engines in one process.
* `app`, `completions` the HTTP surface of vLLM 0.23, 0.32 or 0.33, `metrics` its metric families.
* `core` vLLM's engine core: one call after the other, however late; `scheduler` its request queue.
* `executor` tags that sleep and wake; it moves `weights` (real bytes) and books on `device` (simulated
  bytes).
* `faults` what goes wrong on demand; `probe` what the guard measures; `options` every flag.

What is real and what is simulated: docs/reference/standin.md.
"""
