"""The one error type of the harness."""


class ClusterError(RuntimeError):
    """Something is missing or did not happen in time; the message says what to do."""
