"""Asking a gateway whether it is ready, over plain HTTP and nothing else."""

import asyncio

from paddock.contracts import errors

READY_S = 60.0
ASK_S = 5.0
POLL_S = 0.01


async def wait(host: str, port: int, *, timeout_s: float = READY_S) -> None:
    """Return when `GET /readyz` answers 200.

    Raises:
        errors.NoAnswer: It did not in time; the message carries what it said was missing.
    """
    said = "nothing listens there"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    status, said = await ask(host, port)
                except OSError:
                    status = 0
                if status == 200:  # noqa: PLR2004 - OK
                    return
                await asyncio.sleep(POLL_S)  # another process, or one that has not begun: nothing tells us
    except TimeoutError:
        raise errors.NoAnswer(
            f"cannot reach a ready gateway at {host}:{port} within {timeout_s:.0f} s: {said[:500]}"
        ) from None


async def ask(host: str, port: int) -> tuple[int, str]:
    """The status and the body of `GET /readyz`.

    Raises:
        OSError: Nobody listens, the answer was cut short or did not come in time.
    """
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(
                    f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
                )
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        raise ConnectionError("no answer in time") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 - HTTP/1.1 200 …
        raise ConnectionError("an answer that is not HTTP")
    return int(words[1]), body.decode(errors="replace")
