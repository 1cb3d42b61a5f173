"""HTTP to a port inside a machine: an application there is asked, and answers, as if there were nothing in between."""

import asyncio
import gzip
import json

import pytest
from aiohttp import web

from tests.gateway import apps, door


async def test_a_request_by_host_name_reaches_the_application(machine: apps.Machine, app: apps.App) -> None:
    async with machine.ask(app.port, "/a?b=c") as answer:
        assert (answer.status, await answer.text()) == (200, "GET /a?b=c")


async def test_a_request_by_path_reaches_the_application_without_the_prefix(
    machine: apps.Machine, app: apps.App
) -> None:
    async with machine.ask_by_path(app.port, "/a?b=c") as answer:
        assert (answer.status, await answer.text()) == (200, "GET /a?b=c")


@pytest.mark.parametrize(
    "target",
    [
        "/%2F%2f/%7Euser/%41",
        "/a/../../b/./c",
        "//double//slash",
        "/?",
        "/a?",
        "/a?b=c?d&&e=%zz+%20",
        '/sp%20ace;p=1,2|{}^`\\"<>',
        "/%E2%82%AC/%C3%28",
        "/rpc",
        "/a?x=[1]&y='*'",
    ],
)
async def test_paths_and_queries_arrive_byte_for_byte(
    machine: apps.Machine, app: apps.App, target: str
) -> None:
    head = f"GET {target} HTTP/1.1\nHost: {machine.host(app.port)}\nConnection: close\n"
    said = await machine.say(head + f"X-Paddock-Token: {machine.gateway.token}")
    by_path = f"GET {machine.path(app.port, target)} HTTP/1.1\nHost: x\nConnection: close\n"
    said_by_path = await machine.say(by_path + f"X-Paddock-Token: {machine.gateway.token}")

    assert b" 200 " in said.split(b"\r\n")[0]
    assert b" 200 " in said_by_path.split(b"\r\n")[0]
    assert [one.raw_path for one in app.asked] == [target, target]


async def test_text_in_utf_8_arrives_byte_for_byte_both_ways(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"X-Said": request.headers["X-Name"]})

    app.answers["/"] = answer
    async with machine.ask(app.port, headers={"X-Name": "Grüße €"}) as answered:
        assert answered.headers["X-Said"] == "Grüße €"


async def test_bytes_of_an_answer_that_are_no_utf_8_are_kept(machine: apps.Machine) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Gr\xfcn\r\nX-Name: caf\xe9\r\nContent-Length: 2\r\n\r\nok")

    async with apps.raw(serve) as port:
        said = await machine.say(
            f"GET / HTTP/1.1\nHost: {machine.host(port)}\nConnection: close\n"
            f"Authorization: Bearer {machine.gateway.token}"
        )
    assert said.startswith(b"HTTP/1.1 200 Gr\xfcn\r\n")
    assert b"\r\nX-Name: caf\xe9\r\n" in said
    assert said.endswith(b"\r\n\r\nok")


async def test_a_head_that_cannot_be_passed_on_unchanged_is_refused(
    machine: apps.Machine, app: apps.App
) -> None:
    said = await machine.say(
        f"GET / HTTP/1.1\nHost: {machine.host(app.port)}\nX-Name: caf\xe9\nConnection: close\n"
        f"Authorization: Bearer {machine.gateway.token}"
    )
    assert said.startswith(b"HTTP/1.1 400 ")
    assert app.asked == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_every_method_is_passed_on(machine: apps.Machine, app: apps.App, method: str) -> None:
    async with machine.ask(app.port, "/x", method, data=b"body") as answer:
        assert await answer.text() == f"{method} /x"
    assert app.bodies == [b"body"]


async def test_an_answer_to_head_says_the_length_and_has_no_body(
    machine: apps.Machine, app: apps.App
) -> None:
    async with machine.ask(app.port, "/x", "HEAD") as answer:
        assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "7", b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_one_and_the_connection_goes_on(
    machine: apps.Machine, app: apps.App, status: int
) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={"ETag": '"x"'})

    app.answers["/none"] = answer
    for _ in range(2):
        async with machine.ask(app.port, "/none") as answered:
            assert (answered.status, answered.headers["ETag"], await answered.read()) == (status, '"x"', b"")
        async with machine.ask(app.port, "/") as answered:
            assert answered.status == 200


async def test_an_answer_in_chunks_comes_in_chunks(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b"one,", b"two,", b"three"):
            await response.write(part)
        return response

    app.answers["/"] = answer
    async with machine.ask(app.port) as answered:
        assert answered.headers["Transfer-Encoding"] == "chunked"
        assert await answered.read() == b"one,two,three"


async def test_a_body_in_chunks_arrives_whole(machine: apps.Machine, app: apps.App) -> None:
    async def parts() -> object:
        for part in (b"one,", b"two,", b"three"):
            yield part

    async with machine.ask(app.port, "/", "POST", data=parts()) as answer:
        assert answer.status == 200
    assert app.bodies == [b"one,two,three"]
    assert app.last.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in app.last.headers


async def test_what_is_compressed_stays_as_it_is(machine: apps.Machine, app: apps.App) -> None:
    packed = gzip.compress(b"hello" * 100)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert await request.read() == packed
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    app.answers["/"] = answer
    sent = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    async with machine.ask(app.port, "/", "POST", data=packed, headers=sent) as answered:
        assert answered.headers["Content-Encoding"] == "gzip"
        assert await answered.read() == packed


async def test_a_range_is_answered_by_the_application(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Range"] == "bytes=2-4"
        return web.Response(status=206, body=b"234", headers={"Content-Range": "bytes 2-4/10"})

    app.answers["/"] = answer
    async with machine.ask(app.port, headers={"Range": "bytes=2-4"}) as answered:
        assert (answered.status, answered.headers["Content-Range"]) == (206, "bytes 2-4/10")
        assert await answered.read() == b"234"


async def test_headers_pass_as_they_are_and_nothing_is_added(machine: apps.Machine) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 299 Very Fine\r\nX-lower: 1\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n"
            b"Date: yesterday\r\nContent-Length: 2\r\n\r\nok"
        )

    async with apps.raw(serve) as port:
        host = machine.host(port)
        said = await machine.say(
            f'GET / HTTP/1.1\nhost: {host}\nX-One: 1\nx-two: a\nX-Two: b\nCookie: c=d;  e="f"\n'
            f"Authorization: Basic eDp5\nX-Paddock-Token: {machine.gateway.token}\nConnection: close"
        )
    asked = heads[0].decode().split("\r\n")
    assert asked[:7] == [
        "GET / HTTP/1.1",
        f"Host: {host}",
        "X-One: 1",
        "x-two: a",
        "x-two: b",
        'Cookie: c=d;  e="f"',
        "Authorization: Basic eDp5",
    ]
    assert sorted(asked[7:]) == [
        "",
        "",
        "X-Forwarded-For: 127.0.0.1",
        f"X-Forwarded-Host: {host}",
        "X-Forwarded-Proto: http",
    ]
    assert said.split(b"\r\n\r\n")[0].split(b"\r\n") == [
        b"HTTP/1.1 299 Very Fine",
        b"X-lower: 1",
        b"Set-Cookie: a=1; Path=/",
        b"Set-Cookie: b=2",
        b"Date: yesterday",
        b"Content-Length: 2",
        b"Connection: close",
    ]


async def test_what_belongs_to_one_connection_stays_on_it(machine: apps.Machine) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
            b"Proxy-Authenticate: Basic\r\nX-Paddock-Error: fake\r\nSet-Cookie: paddock-ticket=fake\r\nX-Mine: 1\r\n\r\nok"
        )

    async with apps.raw(serve) as port:
        named = {"Connection": "keep-alive, X-Secret, Host, Content-Length", "X-Secret": "1"}
        hop = {"Keep-Alive": "5", "TE": "trailers", "Proxy-Authorization": "x", "Upgrade": "h2c"}
        async with machine.ask(port, headers={**named, **hop, "X-Kept": "1"}) as answered:
            assert await answered.read() == b"ok"
            names = {name.lower() for name in answered.headers}
    asked = {line.partition(b":")[0].lower() for line in heads[0].split(b"\r\n")[1:]}
    assert {b"host", b"x-kept"} <= asked
    assert asked & {b"x-secret", b"keep-alive", b"te", b"proxy-authorization", b"upgrade"} == set()
    assert names == {"x-mine", "date", "transfer-encoding"}


async def test_an_application_learns_where_a_request_came_from(machine: apps.Machine, app: apps.App) -> None:
    forged = {"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https", "Forwarded": "for=8.8.8.8"}
    async with machine.ask_by_path(app.port, headers=forged) as answer:
        assert answer.status == 200
    headers = app.last.headers
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-Host"] == headers["Host"] == f"127.0.0.1:{machine.gateway_port}"
    assert headers["X-Forwarded-Prefix"] == machine.path(app.port).rstrip("/")
    assert "Forwarded" not in headers


async def test_behind_a_proxy_that_ends_tls_the_way_so_far_is_believed(ground: object) -> None:
    async with door.opened(ground, gateway_public_url="https://paddock.example.com") as gateway:  # type: ignore[arg-type]
        app = apps.App()
        async with apps.machine(gateway) as machine, app.listening():
            told = {
                "X-Forwarded-For": "9.9.9.9",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "x.example",
            }
            async with machine.ask(app.port, headers=told) as answer:
                assert answer.status == 200
            async with machine.ask(app.port) as answer:
                assert answer.status == 200
    first, second = (one.headers for one in app.asked)
    assert first["X-Forwarded-For"] == "9.9.9.9, 127.0.0.1"
    assert (first["X-Forwarded-Proto"], first["X-Forwarded-Host"]) == ("https", "x.example")
    assert (second["X-Forwarded-For"], second["X-Forwarded-Proto"]) == ("127.0.0.1", "https")


async def test_a_redirect_is_passed_on_and_not_followed(machine: apps.Machine, app: apps.App) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://elsewhere.invalid/?x=%2F"})

    app.answers["/"] = answer
    async with machine.ask(app.port) as answered:
        assert (answered.status, answered.headers["Location"]) == (302, "http://elsewhere.invalid/?x=%2F")
    assert len(app.asked) == 1


async def test_cookies_of_an_application_go_both_ways_untouched(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(text=request.headers.get("Cookie", ""))
        response.headers.add("Set-Cookie", 'a="1 2"; Path=/x; HttpOnly')
        response.headers.add("Set-Cookie", "b=; Max-Age=0")
        return response

    app.answers["/"] = answer
    async with machine.ask(app.port, headers={"Cookie": "x=y; z"}) as answered:
        assert answered.headers.getall("Set-Cookie") == ['a="1 2"; Path=/x; HttpOnly', "b=; Max-Age=0"]
        assert await answered.text() == "x=y; z"
    async with machine.ask(app.port) as answered:
        assert await answered.text() == "", "nobody keeps cookies for a client"


async def test_a_client_that_expects_100_continue_is_told_by_the_application(
    machine: apps.Machine, app: apps.App
) -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Expect"] == "100-continue"
        assert request.transport is not None
        asked.set()
        await may_go_on.wait()
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return web.Response(body=await request.read())

    app.answers["/"] = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", machine.gateway_port)
    writer.write(
        f"PUT / HTTP/1.1\r\nHost: {machine.host(app.port)}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
        f"Authorization: Bearer {machine.gateway.token}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        await asked.wait()
        may_go_on.set()
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"body")
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4)
    writer.close()

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"body")


async def test_an_application_may_refuse_a_body_before_it_is_sent(
    machine: apps.Machine, app: apps.App
) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=413, text="too large")

    app.answers["/"] = answer
    said = await machine.say(
        f"PUT / HTTP/1.1\nHost: {machine.host(app.port)}\nExpect: 100-continue\nContent-Length: 1000000\n"
        f"Authorization: Bearer {machine.gateway.token}",
        until=b"too large",
    )
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in said, "else the next request would be taken for the body"


async def test_an_application_that_knows_no_100_continue_gets_its_body(machine: apps.Machine) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\ngot " + body)

    async with apps.raw(serve) as port:
        headers = {"Expect": "100-continue"}
        async with machine.ask(port, "/", "POST", data=b"body", headers=headers) as answered:
            assert await answered.read() == b"got body"


async def test_an_old_client_gets_an_answer_that_ends_with_its_connection(
    machine: apps.Machine, app: apps.App
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"as it comes")
        return response

    app.answers["/"] = answer
    said = await machine.say(
        f"GET / HTTP/1.0\nHost: {machine.host(app.port)}\nAuthorization: Bearer {machine.gateway.token}"
    )
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"as it comes"


async def test_a_path_that_ends_with_the_port_is_sent_to_the_one_with_a_slash(machine: apps.Machine) -> None:
    async with machine.ask_by_path(3000, "?a=b") as answer:
        assert (answer.status, answer.headers["Location"]) == (308, machine.path(3000, "/?a=b"))


async def test_the_gateways_own_paths_are_the_applications_under_its_host(
    machine: apps.Machine, app: apps.App
) -> None:
    async with machine.ask(app.port, "/rpc", "POST", json={"x": 1}) as answer:
        assert await answer.text() == "POST /rpc"
    assert json.loads(app.bodies[0]) == {"x": 1}
    assert await machine.gateway.call("system.ping")


async def test_a_host_that_only_looks_like_a_port_is_the_gateways(gateway: door.Door) -> None:
    async with gateway.http.get(f"{gateway.url}/healthz", headers={"Host": "a--b.example.com"}) as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (
            "Content-Length: 5\nTransfer-Encoding: chunked",
            b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        ("Content-Length: 5\nContent-Length: 6", b"hello!"),
        ("Content-Length: +5", b"hello"),
        ("Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
        ("Transfer-Encoding: xchunked", b"0\r\n\r\n"),
        ("X-Folded: a\n b\nContent-Length: 0", b""),
        ("Content-Length : 5", b"hello"),
        ("X-Nul: a\x00b", b""),
        ("Host: other.invalid", b""),
    ],
)
async def test_a_request_that_could_be_read_in_two_ways_reaches_nobody(
    machine: apps.Machine, app: apps.App, head: str, body: bytes
) -> None:
    said = await machine.say(
        f"POST / HTTP/1.1\nHost: {machine.host(app.port)}\nAuthorization: Bearer {machine.gateway.token}\n{head}",
        body,
        until=b" 400 ",
    )
    assert said[8:13] == b" 400 "
    assert app.asked == []


async def test_chunks_that_are_none_end_the_request(machine: apps.Machine, app: apps.App) -> None:
    said = await machine.say(
        f"POST / HTTP/1.1\nHost: {machine.host(app.port)}\nAuthorization: Bearer {machine.gateway.token}\n"
        "Transfer-Encoding: chunked\nConnection: close",
        b"5\r\nhello\r\nzz\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    )
    assert b" 200 " not in said
    assert [one.path for one in app.asked if one.path == "/smuggled"] == []
    assert app.bodies == []


async def test_a_head_beyond_the_limit_is_refused(machine: apps.Machine, app: apps.App) -> None:
    said = await machine.say(
        f"GET / HTTP/1.1\nHost: {machine.host(app.port)}\nX-Long: {'x' * 9000}", until=b"\r\n\r\n"
    )
    assert said[8:13] == b" 400 "
    assert app.asked == []


async def test_an_applications_head_may_be_longer_than_a_clients(
    machine: apps.Machine, app: apps.App
) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"X-Long": "x" * 30_000})

    app.answers["/"] = answer
    async with machine.ask(app.port, max_field_size=40_000) as answered:
        assert len(answered.headers["X-Long"]) == 30_000
