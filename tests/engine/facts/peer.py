"""Somebody who listens in a worker's place and says something else."""

import contextlib
import socket
import threading


def answer_with(listener: socket.socket, said: bytes) -> threading.Thread:
    """Answer one connection with `said`."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(said)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread
