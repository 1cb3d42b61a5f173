"""What services ask each other over `svc.*`."""

from typing import Literal

from paddock.contracts import rpc


class IssueParams(rpc.Wire, frozen=True):
    machine_id: str
    generation: int


class IssueResult(rpc.Answer, frozen=True):
    """`credentials` is the text of a NATS creds file, a secret; it is written 0600 and never logged."""

    credentials: str
    user_key: str
    expires_at_ms: int


class SandboxParams(rpc.Wire, frozen=True):
    sandbox_id: str


class LogParams(rpc.Wire, frozen=True):
    sandbox_id: str
    tail_bytes: int = 64 * 1024


class LogResult(rpc.Answer, frozen=True):
    text: str
    size_bytes: int


class InspectResult(rpc.Answer, frozen=True):
    """`vanished` is a positive not-found on the sandbox's own node, never an error or a time-out."""

    state: Literal["running", "exited", "vanished"]
    reason: str = ""
    log_tail: str = ""


ISSUE_CREDENTIAL = rpc.Method("credential.issue", IssueParams, IssueResult)
SANDBOX_LOG = rpc.Method("sandbox.log", LogParams, LogResult)
SANDBOX_INSPECT = rpc.Method("sandbox.inspect", SandboxParams, InspectResult)
