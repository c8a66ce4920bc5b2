"""What all rows share. None of it imports torch or vLLM before it has to.

| module | concept |
|---|---|
| `say` | progress lines |
| `machine` | where, when and with what something was measured |
| `memory` | readings of host and device memory, from outside an engine |
| `figures` | medians, ratios and goals |
| `record` | what one process measures, written as it grows |
| `shapes` | models by their sizes; a folder that vLLM loads with dummy weights |
| `checkpoint` | a random model on the disk |
| `environment` | variables that an engine's process needs; the plugin without an installation |
| `children` | processes with a bound on time |
| `inside` | functions that run in an engine's workers |
| `engine` | one vLLM engine in this process |
| `row` | one row: its sides, its file, its command line |
| `results` | what rows say of their sides |
"""
