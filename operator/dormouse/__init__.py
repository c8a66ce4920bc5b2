"""Dormouse: a Kubernetes operator that puts idle LLM engines to sleep and wakes them on demand."""

__version__ = "0.1.0"
