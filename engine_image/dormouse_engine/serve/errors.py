"""What stops a start."""


class ServeError(ValueError):
    """The engine is not started; the message says what to set, for the person who wrote the manifest."""
