"""The bare things ours are compared with, each a process of its own: `python tests/bench/floors.py WHAT ARGS`.

They do the least that does the job, on the event loop that ours uses in the same place.
"""

import asyncio
import json
import os
import sys
from typing import Any

TRUE = "/bin/true"


async def responder(url: str) -> None:
    """Answers by spawning `true` with pipes and a session of its own, on the daemon's kind of loop."""
    import nats

    watcher = asyncio.PidfdChildWatcher()
    watcher.attach_loop(asyncio.get_running_loop())
    asyncio.set_child_watcher(watcher)
    connection = await nats.connect(url)

    async def run(message: Any) -> None:
        child = await asyncio.create_subprocess_exec(
            TRUE, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        out, _ = await child.communicate()
        await message.respond(json.dumps({"exit": child.returncode, "out": out.decode()}).encode())

    running: set[asyncio.Task[None]] = set()

    async def on(message: Any) -> None:
        task = asyncio.get_running_loop().create_task(run(message))
        running.add(task)
        task.add_done_callback(running.discard)

    await connection.subscribe("x", cb=on)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def chain(url: str, port: str) -> None:
    """A bare HTTP door to the responder, and an echo beside it."""
    import nats
    from aiohttp import web

    connection = await nats.connect(url)

    async def ask(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        answer = await connection.request("x", json.dumps(asked["params"]).encode(), timeout=30)
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": json.loads(answer.data)})

    async def echo(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": asked["params"]}).encode()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/exec", ask)
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(port)).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def subscriber(url: str) -> None:
    """What any daemon on this bus has to be: a connection that listens. As the daemon does, without aiohttp."""
    import msgspec  # noqa: F401 - part of what is measured
    import nats

    connection = await nats.connect(url)

    async def on(message: Any) -> None:
        await message.respond(message.data)

    await connection.subscribe("x", cb=on)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def chunks(url: str, size: str) -> None:
    """Sends so many bytes whenever asked: 128 KiB a message, four of them unconfirmed at most."""
    import nats

    connection = await nats.connect(url)
    piece = os.urandom(128 * 1024)
    count = int(size) // len(piece)
    taken, progress, asked = 0, asyncio.Event(), asyncio.Event()

    async def on_credit(message: Any) -> None:
        nonlocal taken
        taken = int(message.data)
        progress.set()

    async def on_send(_message: Any) -> None:
        asked.set()

    await connection.subscribe("credit", cb=on_credit)
    await connection.subscribe("send", cb=on_send)
    await connection.flush()
    print("ready", flush=True)
    while True:
        await asked.wait()
        asked.clear()
        taken = 0
        for index in range(count):
            while index >= taken + 4:
                progress.clear()
                await progress.wait()
            await connection.publish("chunks", piece)


async def taker(url: str, size: str) -> None:
    """Has `chunks` send everything once and confirms each message; says how many seconds it took."""
    import time

    import nats

    connection = await nats.connect(url)
    got, number, done = 0, 0, asyncio.Event()

    async def on(message: Any) -> None:
        nonlocal got, number
        got += len(message.data)
        number += 1
        await connection.publish("credit", b"%d" % number)
        if got >= int(size):
            done.set()

    await connection.subscribe("chunks", cb=on)
    await connection.flush()
    began = time.perf_counter()
    await connection.publish("send", b"")
    await done.wait()
    print(time.perf_counter() - began, flush=True)


async def spawns(count: str, width: str) -> None:
    """Starts `true` with two pipes and a session of its own, as often and as many at once as told."""
    import time

    watcher = asyncio.PidfdChildWatcher()
    watcher.attach_loop(asyncio.get_running_loop())
    asyncio.set_child_watcher(watcher)
    left = int(count)

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            child = await asyncio.create_subprocess_exec(
                TRUE, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            await child.communicate()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(int(width)):
            group.create_task(work())
    print(int(count) / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what != "chain":
        sys.modules["aiohttp"] = None  # type: ignore[assignment]  # nats-py imports it where it finds it
    if what in {"chain", "taker"}:
        import uvloop

        uvloop.run({"chain": chain, "taker": taker}[what](*arguments))
    else:
        plain: dict[str, Any] = {
            "responder": responder,
            "subscriber": subscriber,
            "chunks": chunks,
            "spawns": spawns,
        }
        asyncio.run(plain[what](*arguments))
    os._exit(0)
