"""A guarded fake engine under a real uvicorn, as a process: `python -m tests.engine.guard.serve TOKEN_FILE`.

The first line on stdout is the port. `--asleep` puts the engine to sleep behind the guard's back.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn

from dormouse_engine.guard import Guard, Settings
from tests.engine.guard.fake_engine import FakeEngine


def listen() -> socket.socket:
    """A free port on the loopback. It listens at once: who knows its number may connect, served yet or not."""
    return socket.create_server(("127.0.0.1", 0))


async def main() -> None:
    guard = Guard(FakeEngine(), settings=Settings(token_file=Path(sys.argv[1])))
    listener = listen()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server = uvicorn.Server(uvicorn.Config(guard, log_level="warning", lifespan="on"))
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
