"""Answers `kubectl logs`: the one thing that the API server asks a kubelet for here.

HTTPS on 127.0.0.1; only the API server's own client certificate is let in, because the API server is who
checks whether the user may read the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

API_SERVER_USER = "kube-apiserver-kubelet-client"
_REQUEST_SECONDS = 10.0
_FOLLOW_SECONDS = 0.2


@dataclass(frozen=True)
class LogFiles:
    """What the server needs: its certificate, whom to trust, where logs lie, and which containers run."""

    certificate: Path
    key: Path
    authority: Path
    path: Callable[[str, str, str], Path]
    runs: Callable[[str, str, str], bool]


async def serve_logs(files: LogFiles) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.authority))
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError):
            await _answer(files, reader, writer)
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)


async def _answer(files: LogFiles, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(_REQUEST_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
    url = urlsplit(head.decode("latin-1").split(" ")[1])
    words = [unquote(word) for word in url.path.strip("/").split("/")]
    if _user(writer) != API_SERVER_USER:
        await _send(writer, "403 Forbidden", b"only the API server may ask\n")
    elif len(words) != 4 or words[0] != "containerLogs" or ".." in words:
        await _send(writer, "404 Not Found", b"the process kubelet answers for logs only\n")
    elif not files.path(*words[1:]).exists():
        await _send(writer, "404 Not Found", b"the container has printed nothing yet\n")
    else:
        await _send_log(files, words[1:], parse_qs(url.query), writer)


async def _send_log(
    files: LogFiles, names: list[str], query: dict[str, list[str]], writer: asyncio.StreamWriter
) -> None:
    namespace, pod, container = names
    with files.path(namespace, pod, container).open("rb") as log:
        content = log.read()
        if "tailLines" in query:
            count = int(query["tailLines"][0])
            content = b"".join(content.splitlines(keepends=True)[-count:]) if count else b""
        await _send(writer, "200 OK", content)
        while query.get("follow") == ["true"] and not writer.is_closing():
            running = files.runs(namespace, pod, container)
            if more := log.read():
                writer.write(more)
                await writer.drain()
            elif not running:
                return
            await asyncio.sleep(_FOLLOW_SECONDS)


async def _send(writer: asyncio.StreamWriter, status: str, content: bytes) -> None:
    """Send a response whose end is the end of the connection."""
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n".encode() + content
    )
    await writer.drain()


def _user(writer: asyncio.StreamWriter) -> str | None:
    certificate = writer.get_extra_info("peercert") or {}
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    return dict(subject).get("commonName")
