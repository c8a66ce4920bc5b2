"""What a sleep and a wake cost, measured beside the allocators that engines use today.

`python -m dormouse_native.bench --driver cuda --shape qwen3-32b --compare cumem,tms --out FILE` on a GPU machine,
`--driver host,sim` anywhere. Nothing here touches CUDA before it is asked to.
"""
