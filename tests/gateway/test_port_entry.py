"""Who reaches a port: an access token, or a ticket for just this port; and what of that the application never sees."""

import asyncio
from typing import Any
from urllib import parse

import aiohttp
import pytest
import yarl

from paddock.contracts import phases
from tests.gateway import apps, door

NOBODY = {"Authorization": None}
BROWSER = {"Authorization": None, "Accept": "text/html,*/*"}


def ticket_in(url: str) -> str:
    return parse.parse_qs(parse.urlsplit(url).query)["paddock-ticket"][0]


async def ticket(machine: apps.Machine, port: int, **params: Any) -> str:
    made = await machine.gateway.call("machine.portUrl", machineId=machine.id, port=port, **params)
    return ticket_in(made["url"])


async def error_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body: dict[str, Any] = await answer.json()
    assert answer.headers["X-Paddock-Error"] == body["error"]["kind"]
    return dict(body["error"])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer pdk_t0_" + "x" * 43},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic eDp5"},
        {"X-Paddock-Token": "nonsense"},
        {"Cookie": "paddock-ticket=nonsense"},
    ],
)
async def test_who_shows_nothing_good_is_refused_and_learns_nothing(
    machine: apps.Machine, app: apps.App, headers: dict[str, str]
) -> None:
    for host in (machine.host(app.port), "3000--nosuchmachine.localhost"):
        sent = {**NOBODY, **headers, "Host": host}
        async with machine.ask(app.port, headers=sent) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert (await error_of(answer))["kind"] == "unauthenticated"
    assert app.asked == []


async def test_a_preflight_without_a_token_is_refused(machine: apps.Machine, app: apps.App) -> None:
    asked = {**NOBODY, "Origin": "https://x.example", "Access-Control-Request-Method": "GET"}
    async with machine.ask(app.port, "/", "OPTIONS", headers=asked) as answer:
        assert answer.status == 401
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert app.asked == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_the_access_token_never_reaches_the_application(
    machine: apps.Machine, app: apps.App, scheme: str
) -> None:
    token = machine.gateway.token
    for headers in (
        {"Authorization": f"{scheme} {token}"},
        {**NOBODY, "X-Paddock-Token": token},
        {"Authorization": f"Bearer {token}", "x-paddock-token": token},
    ):
        async with machine.ask(app.port, headers=headers) as answer:
            assert answer.status == 200
        assert token not in str(app.last.headers)
        assert "Authorization" not in app.last.headers


async def test_an_authorization_for_the_application_is_passed_on(
    machine: apps.Machine, app: apps.App
) -> None:
    for given in ("Basic eDp5", "Bearer of-the-application", 'Digest username="x"'):
        headers = {"Authorization": given, "X-Paddock-Token": machine.gateway.token}
        async with machine.ask(app.port, headers=headers) as answer:
            assert answer.status == 200
        assert app.last.headers["Authorization"] == given


async def test_an_address_with_a_ticket_lets_a_program_in_at_once(
    machine: apps.Machine, app: apps.App
) -> None:
    good = await ticket(machine, app.port)
    async with machine.ask(app.port, f"/a?b=%41&paddock-ticket={good}&c", headers=NOBODY) as answer:
        assert await answer.text() == "GET /a?b=%41&c"
    async with machine.ask_by_path(app.port, f"/a?paddock-ticket={good}", "POST", headers=NOBODY) as answer:
        assert await answer.text() == "POST /a"
    assert good not in str(app.last.headers)


async def test_a_browser_gets_a_cookie_and_the_address_without_the_ticket(
    machine: apps.Machine, app: apps.App
) -> None:
    good = await ticket(machine, app.port, expiresS=100.0)
    async with machine.ask(app.port, f"/a?b=%41&paddock-ticket={good}", headers=BROWSER) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/a?b=%41")
        cookie = answer.headers["Set-Cookie"]
        assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == (
            "no-store",
            "no-referrer",
        )
    name, _, attributes = cookie.partition("; ")
    assert attributes in {f"Path=/; Max-Age={s}; HttpOnly; SameSite=Lax" for s in (99, 100)}
    assert app.asked == []

    async with machine.ask(
        app.port, "/a?b=%41", headers={**BROWSER, "Cookie": f"mine=1; {name}; last=2"}
    ) as answer:
        assert await answer.text() == "GET /a?b=%41"
    assert app.last.headers["Cookie"] == "mine=1; last=2"
    async with machine.ask(app.port, headers={**BROWSER, "Cookie": name}) as answer:
        assert answer.status == 200
    assert "Cookie" not in app.last.headers


async def test_the_cookie_of_an_address_by_path_is_for_that_path(
    machine: apps.Machine, app: apps.App
) -> None:
    good = await ticket(machine, app.port)
    async with machine.ask_by_path(app.port, f"/a?paddock-ticket={good}", headers=BROWSER) as answer:
        assert answer.headers["Location"] == machine.path(app.port, "/a")
        assert f"; Path={machine.path(app.port)};" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("target", ["//evil.example/", "/\\evil.example/", "//evil.example\\@x"])
async def test_no_address_with_a_ticket_leads_elsewhere(
    machine: apps.Machine, app: apps.App, target: str
) -> None:
    good = await ticket(machine, app.port)
    said = await machine.say(
        f"GET {target}?paddock-ticket={good} HTTP/1.1\nHost: {machine.host(app.port)}\nAccept: text/html\n"
        "Connection: close"
    )
    location = said.decode().partition("Location: ")[2].partition("\r\n")[0]
    assert location == f"/.{target}"
    assert yarl.URL("http://here.example/").join(yarl.URL(location)).host == "here.example"


async def test_a_ticket_in_the_query_of_a_websocket_is_not_redirected(
    machine: apps.Machine, app: apps.App
) -> None:
    good = await ticket(machine, app.port)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await machine.gateway.http.ws_connect(
            f"{machine.gateway.url}/x?paddock-ticket={good}",
            headers={"Host": machine.host(app.port), "Accept": "text/html"},
        )
    assert refused.value.status == 200, "the application was asked, and it knows no WebSocket"
    assert app.last.raw_path == "/x"


async def test_a_ticket_opens_no_other_port_and_no_other_machine(
    machine: apps.Machine, app: apps.App
) -> None:
    other = await machine.gateway.machine_in(phases.Phase.ACTIVE)
    good = await ticket(machine, app.port)
    for host in (machine.host(app.port + 1 if app.port < 65_535 else 1), f"{app.port}--{other}.localhost"):
        for headers, target in (
            ({"Cookie": f"paddock-ticket={good}"}, "/"),
            ({}, f"/?paddock-ticket={good}"),
        ):
            async with machine.ask(app.port, target, headers={**NOBODY, **headers, "Host": host}) as answer:
                assert answer.status == 401
    assert app.asked == []


async def test_a_ticket_that_expired_is_refused_however_it_comes(
    machine: apps.Machine, app: apps.App
) -> None:
    old = await ticket(machine, app.port, expiresS=0.02)
    await asyncio.sleep(0.03)  # the time itself is what is tested
    cookie = {**NOBODY, "Cookie": f"paddock-ticket={old}"}
    for target, headers in (
        (f"/?paddock-ticket={old}", NOBODY),
        (f"/?paddock-ticket={old}", BROWSER),
        ("/", cookie),
    ):
        async with machine.ask(app.port, target, headers=headers) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers
    assert app.asked == []


async def test_a_ticket_ends_with_the_token_that_made_it(machine: apps.Machine, app: apps.App) -> None:
    made = await machine.gateway.call("token.create", name="short")
    asked = {"jsonrpc": "2.0", "id": 1, "method": "machine.portUrl"}
    params = {"machineId": machine.id, "port": app.port}
    authorization = {"Authorization": f"Bearer {made['text']}"}
    async with machine.gateway.http.post(
        f"{machine.gateway.url}/rpc", json={**asked, "params": params}, headers=authorization
    ) as answer:
        good = ticket_in((await answer.json())["result"]["url"])
    statuses = []
    for _ in range(2):
        async with machine.ask(app.port, f"/?paddock-ticket={good}", headers=NOBODY) as answer:
            statuses.append(answer.status)
        await machine.gateway.call("token.revoke", tokenId=made["token"]["id"])
    assert statuses == [200, 401]


async def test_an_old_ticket_beside_a_good_cookie_does_not_lock_out(
    machine: apps.Machine, app: apps.App
) -> None:
    good = await ticket(machine, app.port)
    headers = {**NOBODY, "Cookie": f"paddock-ticket=old; paddock-ticket={good}"}
    async with machine.ask(app.port, "/a?paddock-ticket=old", headers=headers) as answer:
        assert await answer.text() == "GET /a"


async def test_what_a_page_elsewhere_makes_a_browser_do_is_refused(
    machine: apps.Machine, app: apps.App
) -> None:
    good = await ticket(machine, app.port)
    cookie = {**NOBODY, "Cookie": f"paddock-ticket={good}"}
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    mine = f"http://{machine.host(app.port)}"
    sibling = f"http://8080--{machine.id}.localhost:{machine.gateway_port}"
    for origin in ("http://evil.example", "null", "http://3000--m2.localhost", f"{mine}.evil.example"):
        foreign = {**cookie, "Origin": origin}
        for method, more in (("POST", {}), ("DELETE", {}), ("GET", upgrade)):
            async with machine.ask(app.port, "/", method, headers={**foreign, **more}) as answer:
                assert answer.status == 401, (origin, method)
    for origin in (mine, mine.upper(), sibling):
        async with machine.ask(app.port, "/", "POST", headers={**cookie, "Origin": origin}) as answer:
            assert answer.status == 200, origin
    async with machine.ask(app.port, "/", headers={**cookie, "Origin": "http://evil.example"}) as answer:
        assert answer.status == 200, "reading is for the application's own CORS rules"


async def test_cookies_let_nobody_into_the_gateway_itself(machine: apps.Machine, app: apps.App) -> None:
    good = await ticket(machine, app.port)
    url = f"{machine.gateway.url}/rpc"
    async with machine.gateway.http.post(
        url, data=b"{}", headers={"Cookie": f"paddock-ticket={good}"}
    ) as answer:
        assert answer.status == 401


async def test_an_address_names_host_and_path_and_how_long_it_is_good(
    machine: apps.Machine, app: apps.App
) -> None:
    made = await machine.gateway.call(
        "machine.portUrl", machineId=machine.id, port=app.port, path="/ü?a=%2F#part", expiresS=60.0
    )
    sealed = ticket_in(made["url"])
    assert made["url"] == f"http://{machine.host(app.port)}/%C3%BC?a=%2F&paddock-ticket={sealed}#part"
    path = machine.path(app.port, f"/%C3%BC?a=%2F&paddock-ticket={sealed}#part")
    assert made["pathUrl"] == f"{machine.gateway.url}{path}"
    assert made["expiresAt"].endswith("Z")
    async with machine.gateway.http.get(yarl.URL(made["pathUrl"], encoded=True)) as answer:
        assert await answer.text() == "GET /%C3%BC?a=%2F"


async def test_an_address_is_where_people_reach_the_gateway(ground: Any) -> None:
    settings = {
        "gateway_public_url": "https://paddock.example.com/base/",
        "gateway_ports_domain": "ports.example.com",
    }
    async with door.opened(ground, **settings) as gateway:
        machine = await gateway.machine_in(phases.Phase.ACTIVE)
        made = await gateway.call("machine.portUrl", machineId=machine, port=80)
        sealed = ticket_in(made["url"])
        sent = {"Host": f"80--{machine}.ports.example.com", "Accept": "text/html"}
        async with gateway.http.get(
            f"{gateway.url}/?paddock-ticket={sealed}", headers=sent, allow_redirects=False
        ) as answer:
            cookie = answer.headers["Set-Cookie"]
    assert made["url"] == f"https://80--{machine}.ports.example.com/?paddock-ticket={sealed}"
    assert made["pathUrl"] == (
        f"https://paddock.example.com/base/machines/{machine}/ports/80/?paddock-ticket={sealed}"
    )
    assert cookie.endswith("; Secure")


async def test_without_a_domain_both_addresses_are_by_path(ground: Any) -> None:
    async with door.opened(ground, gateway_ports_domain="") as gateway:
        machine = await gateway.machine_in(phases.Phase.ACTIVE)
        made = await gateway.call("machine.portUrl", machineId=machine, port=80)
    assert made["url"] == made["pathUrl"]


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"port": 0}, "invalid_params"),
        ({"port": 65_536}, "invalid_params"),
        ({"port": "80"}, "invalid_params"),
        ({"port": 80, "path": "x"}, "invalid_params"),
        ({"port": 80, "path": "/a b"}, "invalid_params"),
        ({"port": 80, "path": "/a\r\nb"}, "invalid_params"),
        ({"port": 80, "expiresS": 0.0}, "invalid_params"),
        ({"port": 80, "expiresS": 1e9}, "invalid_params"),
        ({"port": 80, "machineId": "nosuch"}, "not_found"),
    ],
)
async def test_an_address_that_cannot_be_made_is_refused(
    machine: apps.Machine, params: dict[str, Any], kind: str
) -> None:
    error = await machine.gateway.refused("machine.portUrl", **{"machineId": machine.id, **params})
    assert error["data"]["kind"] == kind
