"""The HTTP surface: who is let in, what is too large, and what a caller sees when something is missing."""

import asyncio
import io
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from paddock.gateway import http
from tests.gateway import door

PING = b'{"jsonrpc":"2.0","id":1,"method":"system.ping"}'


STRANGERS = (
    None,
    "",
    "Bearer",
    "Bearer ",
    "Basic eA==",
    "Bearer nope",
    "Bearer pdk_x_" + "A" * 43,
    "pdk_x_y",
)


async def test_nobody_without_a_valid_token_is_let_in(gateway: door.Door) -> None:
    for header in STRANGERS:
        headers = {} if header is None else {"Authorization": header}
        async with gateway.http.post(f"{gateway.url}/rpc", data=PING, headers=headers) as answer:
            error = (await answer.json())["error"]

        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (error["code"], error["data"]["kind"]) == (2001, "unauthenticated")


async def test_the_scheme_may_be_written_in_any_case(gateway: door.Door) -> None:
    status, _ = await gateway.post(PING, Authorization=f"bEARER {gateway.token}")

    assert status == 200


async def test_sockets_want_a_token_too(gateway: door.Door) -> None:
    async with gateway.http.get(f"{gateway.url}/ws") as answer:
        assert answer.status == 401


async def test_a_plain_get_on_the_socket_path_says_what_it_is(gateway: door.Door) -> None:
    async with gateway.http.get(f"{gateway.url}/ws", headers=gateway.headers) as answer:
        assert answer.status == 426


async def test_a_body_that_is_too_large_is_refused_by_its_header_and_by_its_size(gateway: door.Door) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(http.BODY_BYTES_MAX // 65_536 + 1):
            yield b"x" * 65_536

    large = io.BytesIO(b"x" * (http.BODY_BYTES_MAX + 1))
    async with gateway.http.post(f"{gateway.url}/rpc", data=large, headers=gateway.headers) as answer:
        by_header = answer.status
    async with gateway.http.post(f"{gateway.url}/rpc", data=chunked(), headers=gateway.headers) as answer:
        body = await answer.json()

    assert (by_header, answer.status) == (413, 413)
    assert body["error"]["data"]["kind"] == "payload_too_large"


async def test_a_compressed_body_is_never_unpacked(gateway: door.Door) -> None:
    bomb = zlib.compress(b" " * (http.BODY_BYTES_MAX * 4) + PING)

    status, body = await gateway.post(bomb, **{"Content-Encoding": "deflate"})

    assert (status, json.loads(body)["error"]["code"]) == (200, -32700)


async def test_notifications_have_no_content(gateway: door.Door) -> None:
    status, body = await gateway.post(b'{"jsonrpc":"2.0","method":"system.ping"}')

    assert (status, body) == (204, b"")


async def test_every_answer_carries_a_request_id_the_callers_own_if_it_is_one(gateway: door.Door) -> None:
    async def request_id(**headers: str) -> str:
        sent = {**gateway.headers, **headers}
        async with gateway.http.post(f"{gateway.url}/rpc", data=PING, headers=sent) as answer:
            return answer.headers["X-Request-Id"]

    first, second = await request_id(), await request_id()

    assert first != second
    assert await request_id(**{"X-Request-Id": "mine-1"}) == "mine-1"
    assert await request_id(**{"X-Request-Id": "a b"}) != "a b"


async def test_other_paths_and_methods_are_not_there(gateway: door.Door) -> None:
    statuses = []
    for method, path in (("GET", "/rpc"), ("POST", "/ws"), ("GET", "/"), ("GET", "/rpc/")):
        async with gateway.http.request(method, gateway.url + path, headers=gateway.headers) as answer:
            statuses.append(answer.status)

    assert statuses == [405, 405, 404, 404]


async def test_health_and_readiness_need_no_token(gateway: door.Door) -> None:
    async with (
        gateway.http.get(f"{gateway.url}/healthz") as alive,
        gateway.http.get(f"{gateway.url}/readyz") as ready,
    ):
        assert (alive.status, ready.status) == (200, 200)
        assert await ready.json() == {"ready": True, "missing": {}}


async def test_readiness_says_what_is_missing_and_comes_back(gateway: door.Door) -> None:
    gateway.ground.nats.stop()

    missing = await wait_for_readiness(gateway, 503)
    alive = await gateway.call("system.ping")
    gateway.ground.nats.start()
    back = await wait_for_readiness(gateway, 200)

    assert set(missing["missing"]) == {"bus", "events"}
    assert alive == {"pong": True}
    assert back["ready"] is True


async def wait_for_readiness(gateway: door.Door, status: int) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            async with gateway.http.get(f"{gateway.url}/readyz") as answer:
                if answer.status == status:
                    return dict(await answer.json())
