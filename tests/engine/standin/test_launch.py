"""How tests start engines: whoever answers is the engine that was started."""

from __future__ import annotations

import socket

import pytest

from tests.engine.standin.launch import reserve_port


@pytest.mark.parametrize("address", ["127.0.0.1", "127.29.0.5", ""])
def test_a_reserved_port_is_nobody_elses_until_its_engine_listens(address: str) -> None:
    port, held = reserve_port()
    with held:
        with socket.socket() as stranger, pytest.raises(OSError, match="already in use"):
            stranger.bind((address, port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with socket.create_server((address, port)) as engine:
            connect_to = (address or "127.0.0.1", port)
            socket.create_connection(connect_to, timeout=5).close()
            engine.accept()[0].close()
