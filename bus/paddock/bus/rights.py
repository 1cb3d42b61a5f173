"""Who may say what on the bus: one table, stated over the patterns of `contracts.subjects`.

Everybody gets what their work needs and nothing else; the server refuses the rest. A daemon's rights are a
template, kept once in the account: the name in its credential (the sandbox id) fills it in, so one push
changes the rights of a fleet.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from paddock.contracts import ids, subjects

ServiceName = Literal["gateway", "registrar", "provisioner", "setup_pusher", "prober", "bootstrap", "system"]
CONSUMERS: Final[tuple[ServiceName, ...]] = ("provisioner", "setup_pusher", "prober")
"""Services with a durable consumer of their own name on EVENTS."""
REPLY_WITHIN_S = 60
"""How long a reply may take, for users and accounts' exports alike. Later ones are dropped without a word."""
UNLIMITED: Final = {"subs": -1, "data": -1, "payload": -1}
NOTHING: Final = {"deny": [">"]}
"""An empty allow list would mean everything."""

_DAEMON_LIMITS: Final = {"subs": 1000, "data": -1, "payload": 1024 * 1024}
"""A daemon needs four subscriptions. One too many closes its connection, so the limit only stops abuse."""
_ANY: Final = ids.SandboxId("*")
_ME: Final = ids.SandboxId("{{name()}}")
_MAY_ANSWER: Final = {"max": 1, "ttl": REPLY_WITHIN_S * 1_000_000_000}
"""One reply a request. The server counts deliveries, so the subscriptions of one user must not overlap."""

DAEMON_CALLS: Final = (subjects.rpc_call(_ANY), subjects.rpc_control(_ANY))
DAEMON_CHUNKS: Final = subjects.out(_ANY, "*", "*")
REPORTS: Final = (subjects.REPORT_CALLS, subjects.REPORT_BEATS, subjects.ENROL_CALLS)

_EVENTS: Final = subjects.EVENTS_STREAM
_READ_EVENTS: Final = (
    f"$JS.API.STREAM.INFO.{_EVENTS}",
    f"$JS.API.STREAM.MSG.GET.{_EVENTS}",
    # Never the form without a name in the subject: its body may name, and replace, anybody's durable.
    f"$JS.API.CONSUMER.CREATE.{_EVENTS}.>",
    f"$JS.API.CONSUMER.INFO.{_EVENTS}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{_EVENTS}.*",
    f"$JS.API.CONSUMER.DELETE.{_EVENTS}.*",
    "$JS.FC.>",
)
_KEEP_STREAMS: Final = tuple(
    f"$JS.API.STREAM.{verb}.{stream}"
    for verb in ("INFO", "CREATE", "UPDATE")
    for stream in (_EVENTS, subjects.DEAD_LETTERS_STREAM)
) + tuple(f"$JS.API.CONSUMER.{verb}.{_EVENTS}.>" for verb in ("INFO", "CREATE", "DURABLE.CREATE"))

_PUBLISH: Final[dict[ServiceName, tuple[str, ...]]] = {
    "gateway": (*DAEMON_CALLS, subjects.REGISTRAR_CALL, subjects.provisioner_call("*"), *_READ_EVENTS),
    "registrar": (*subjects.EVENT_SUBJECTS, f"$JS.API.STREAM.INFO.{_EVENTS}"),
    "provisioner": (subjects.REGISTRAR_CALL,),
    "setup_pusher": DAEMON_CALLS,
    "prober": DAEMON_CALLS,
    "bootstrap": _KEEP_STREAMS,
}
_SUBSCRIBE: Final[dict[ServiceName, tuple[str, ...]]] = {
    # Whole tokens only: a pattern cannot say "callers whose id begins with gateway".
    "gateway": (DAEMON_CHUNKS, "mon.>"),
    "registrar": (*REPORTS, subjects.REGISTRAR_CALL, subjects.NUDGE_OUTBOX),
    "provisioner": (subjects.provisioner_call("*"),),
    "setup_pusher": (DAEMON_CHUNKS,),
    "prober": (DAEMON_CHUNKS,),
    "bootstrap": (),
}
_ANSWERING: Final[tuple[ServiceName, ...]] = ("registrar", "provisioner")


def inbox_prefix(name: str) -> str:
    """Where replies to `name`, a service or a sandbox, arrive; connect with exactly this."""
    return f"_INBOX_{name}"


def service_permissions(name: ServiceName, *, fleet_account: str) -> dict[str, Any]:
    """The claims of one service. `fleet_account` is the public key of what `system` watches."""
    if name == "system":
        return _claims(
            ("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.*.KICK", "$SYS.REQ.SERVER.PING.CONNZ"),
            (f"{inbox_prefix(name)}.>", f"$SYS.ACCOUNT.{fleet_account}.>"),
        )
    publish = [subjects.NUDGE_OUTBOX, *_PUBLISH[name]]
    if name in CONSUMERS:
        publish += _consumer_rights(name)
    claims = _claims(publish, (f"{inbox_prefix(name)}.>", *_SUBSCRIBE[name]))
    if name == "gateway":
        claims["pub"]["deny"] = _not_of_others()
    if name in _ANSWERING:
        claims["resp"] = _MAY_ANSWER
    return claims


def monitor_permissions(project: ids.ProjectId) -> dict[str, Any]:
    """Listen to one project's stored events, say nothing.

    No JetStream right, however narrow: with one it could have messages delivered to any subject.
    """
    return {**UNLIMITED, "pub": NOTHING, "sub": {"allow": [subjects.monitor(project)]}}


def daemon_permissions() -> dict[str, Any]:
    """The template of role `daemon`: answer its calls, send its chunks and reports, read its inbox."""
    return {
        **_DAEMON_LIMITS,
        "pub": {"allow": [subjects.report_call(_ME), subjects.report_beat(_ME), subjects.out(_ME, "*", "*")]},
        "sub": {"allow": [subjects.rpc_call(_ME), subjects.rpc_control(_ME), f"{inbox_prefix(_ME)}.>"]},
        "resp": _MAY_ANSWER,
    }


def boot_permissions() -> dict[str, Any]:
    """The template of role `boot`: enrol, and nothing else."""
    enrol = subjects.ENROL_CALLS.replace("*", _ME)
    return {**_DAEMON_LIMITS, "pub": {"allow": [enrol]}, "sub": {"allow": [f"{inbox_prefix(_ME)}.>"]}}


def _not_of_others() -> list[str]:
    """Consumers of EVENTS that whoever may make some must leave alone: no pattern says which are its own."""
    verbs = ("CREATE", "MSG.NEXT", "DELETE")
    own = [f"$JS.API.CONSUMER.{verb}.{_EVENTS}.{durable}" for verb in verbs for durable in CONSUMERS]
    return own + [f"$JS.API.CONSUMER.CREATE.{_EVENTS}.{durable}.>" for durable in CONSUMERS]


def _consumer_rights(durable: str) -> list[str]:
    return [
        f"$JS.API.CONSUMER.INFO.{_EVENTS}.{durable}",
        f"$JS.API.CONSUMER.MSG.NEXT.{_EVENTS}.{durable}",
        f"$JS.ACK.{_EVENTS}.{durable}.>",
        subjects.dead_letter(durable, ">"),
    ]


def _claims(publish: Sequence[str], subscribe: Sequence[str]) -> dict[str, Any]:
    return {**UNLIMITED, "pub": {"allow": list(publish)}, "sub": {"allow": list(subscribe)}}
