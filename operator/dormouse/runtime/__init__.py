"""The loop: collect, decide, act; with its locks, timers and health endpoints."""
