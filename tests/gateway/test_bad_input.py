"""Whatever is sent: an answer, never a server error, never a stack trace, and nothing half done."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.contracts.api import methods
from tests.gateway import door
from tests.support import databases

PROJECT, MACHINE = "the-project", "the-machine"
GOOD: dict[str, dict[str, Any]] = {
    "system.ping": {},
    "system.info": {},
    "project.create": {
        "name": "x",
        "provider": "process",
        "image": "i",
        "blueprint": {"setupSteps": [{"command": ["a"]}], "probes": [{"kind": "rpc"}]},
    },
    "project.get": {"projectId": PROJECT},
    "project.update": {"projectId": PROJECT, "name": "y"},
    "project.list": {"limit": 5, "cursor": "1-a"},
    "project.delete": {"projectId": PROJECT},
    "machine.create": {
        "projectId": PROJECT,
        "name": "x",
        "clientToken": "t",
        "labels": {"a": "b"},
        "env": {"A": "1"},
    },
    "machine.get": {"machineId": MACHINE},
    "machine.list": {"projectId": PROJECT, "phases": ["created"], "limit": 5},
    "machine.delete": {"machineId": "m0"},
    "machine.retry": {"machineId": MACHINE},
    "machine.history": {"machineId": MACHINE},
    "machine.exec": {
        "machineId": MACHINE,
        "command": ["a"],
        "env": {"A": "1"},
        "cwd": "~",
        "stdin": "x",
        "callId": "c",
    },
    "machine.writeFile": {"machineId": MACHINE, "path": "a", "content": "b", "mode": 420},
    "machine.readFile": {"machineId": MACHINE, "path": "a", "offset": 0, "length": 1},
    "machine.logs": {"machineId": MACHINE, "tailBytes": 1},
    "machine.execStart": {
        "machineId": MACHINE,
        "id": "e",
        "command": ["a"],
        "env": {"A": "1"},
        "user": "u",
        "pty": True,
        "columns": 80,
        "timeoutS": 5,
        "outputLimitBytes": 1 << 20,
    },
    "machine.execAttach": {"machineId": MACHINE, "id": "e", "stdoutOffset": 0},
    "machine.execWrite": {
        "machineId": MACHINE,
        "id": "e",
        "content": "eA==",
        "encoding": "base64",
        "offset": 0,
    },
    "machine.execResize": {"machineId": MACHINE, "id": "e", "columns": 80, "rows": 24},
    "machine.execSignal": {"machineId": MACHINE, "id": "e", "signal": "TERM"},
    "machine.execWait": {"machineId": MACHINE, "id": "e", "waitS": 0.01},
    "machine.execList": {"machineId": MACHINE, "limit": 5, "before": "e"},
    "machine.execOutput": {"machineId": MACHINE, "id": "e", "stream": "stderr", "offset": 0, "length": 1},
    "machine.execSummary": {"machineId": MACHINE, "id": "e", "limitBytes": 5},
    "machine.fileRead": {"machineId": MACHINE, "path": "a", "offset": 0, "length": 1, "version": "v"},
    "machine.fileWrite": {"machineId": MACHINE, "path": "a", "upload": "u"},
    "machine.fileCommit": {
        "machineId": MACHINE,
        "path": "a",
        "upload": "u",
        "size": 0,
        "sha256": "0" * 64,
        "mode": 420,
        "expectedSha256": "absent",
        "callId": "c",
    },
    "machine.fileAbort": {"machineId": MACHINE, "upload": "u"},
    "machine.fileStat": {"machineId": MACHINE, "path": "a", "digest": True},
    "machine.fileList": {"machineId": MACHINE, "path": "a", "limit": 5, "after": "b"},
    "machine.fileMkdir": {"machineId": MACHINE, "path": "a", "mode": 448, "callId": "c"},
    "machine.fileMove": {"machineId": MACHINE, "path": "a", "to": "b", "callId": "c"},
    "machine.fileRemove": {"machineId": MACHINE, "path": "a", "recursive": True, "callId": "c"},
    "machine.fileChmod": {"machineId": MACHINE, "path": "a", "mode": 448, "callId": "c"},
    "machine.fileFind": {"machineId": MACHINE, "path": "a", "pattern": "*", "kind": "file", "depthMax": 3},
    "machine.portOpen": {"machineId": MACHINE, "port": 80},
    "machine.portUrl": {"machineId": MACHINE, "port": 80, "path": "/a?b", "expiresS": 5},
    "stream.close": {"stream": 1},
    "env.set": {"scope": "project", "projectId": PROJECT, "variables": {"A": "1"}},
    "env.unset": {"scope": "project", "projectId": PROJECT, "names": ["A"]},
    "env.list": {"scope": "project", "projectId": PROJECT},
    "repository.add": {
        "projectId": PROJECT,
        "url": "https://a.b/c",
        "path": "x",
        "branch": "main",
        "secret": "s",
    },
    "repository.remove": {"repositoryId": "r0"},
    "repository.list": {"projectId": PROJECT},
    "token.create": {"name": "x", "ttlS": 5},
    "token.list": {},
    "token.revoke": {"tokenId": "t0"},
    "events.subscribe": {"cursor": "a-1"},
    "events.unsubscribe": {"subscription": "s1"},
}
TEXT = st.text() | st.sampled_from(
    ["\x00", "a\x00b", "\ud800", "..", "-x", "*", ">", "x" * 5000, "m-1", "\u2028", "é"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**40, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def nearly_good(draw: st.DrawFn) -> dict[str, Any]:
    """A call that would do, but for a member or two."""
    method = draw(st.sampled_from(sorted(GOOD)))
    params = dict(GOOD[method])
    names = [
        *params,
        *(field.alias or name for name, field in methods.BY_NAME[method].params.model_fields.items()),
    ]
    for _ in range(draw(st.integers(0, 2))):
        params[draw(st.sampled_from(names) if names else TEXT)] = draw(
            JSON | TEXT.map(lambda text: {text: text})
        )
    return {"jsonrpc": "2.0", "id": draw(st.integers()), "method": method, "params": params}


BODIES = st.one_of(nearly_good(), st.lists(nearly_good(), max_size=3), JSON).map(json.dumps) | st.text()


def test_there_is_a_good_call_of_every_method() -> None:
    assert set(GOOD) == set(methods.BY_NAME)


async def test_good_calls_are_understood(gateway: door.Door) -> None:
    """So that the test below is about what it says."""
    project = await gateway.project()
    machine = (await gateway.call("machine.create", projectId=project))["id"]
    for method, params in GOOD.items():
        sent = json.loads(json.dumps(params).replace(PROJECT, project).replace(MACHINE, machine))
        response = await gateway.ask(method, **sent)

        assert response.get("error", {}).get("code") not in {-32700, -32601, -32602}, response


@pytest.mark.parametrize("kind", databases.KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODIES)
async def test_random_json_is_never_a_server_error(gateway: door.Door, body: str) -> None:
    listed = (await gateway.call("machine.list"))["machines"]
    machine = listed[0] if listed else await gateway.call("machine.create", projectId=await gateway.project())
    aimed = body.replace(PROJECT, machine["projectId"]).replace(MACHINE, machine["id"])

    status, answered = await gateway.post(aimed.encode(errors="surrogatepass"))

    assert status in {200, 204, 413}
    assert b"Traceback" not in answered
    assert b'"code":-32603' not in answered, answered
