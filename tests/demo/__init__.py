"""The demo: the project's main job on real parts, for people (`make demo`) and for proof (`make demo-once`).

stage   what is brought up: cluster, definition, operator, two models that share one device
story   what happens on it: requests, and what was seen
view    how it looks in a terminal
"""
