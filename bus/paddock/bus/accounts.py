"""The realm: one operator and its accounts, and the credentials it gives out.

FLEET holds the daemons, APP the services and JetStream, SYS the server's own affairs. FLEET and APP are
joined by exports, so that a reply subject a daemon invents is never one of APP: in a single account it could
make a service that answers write into the event stream or delete it. A realm is made once and kept; its file
is the most secret thing we have.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from paddock.bus import clock, credentials, files, rights
from paddock.contracts import errors, ids

CLAIMS_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
PUSH_TIMEOUT_S = 5.0
_ACCOUNT_LIMITS = {
    **rights.UNLIMITED,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "conn": -1,
    "leaf": 0,
}
_JETSTREAM_LIMITS = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
_NO_RIGHTS = {"pub": rights.NOTHING, "sub": rights.NOTHING}
"""What a user has whose credential states no rights."""
_REPLY_THRESHOLD_NS = rights.REPLY_WITHIN_S * 1_000_000_000
# With the default two seconds a handshake, most work is thrown away when a fleet comes back at once.
_SERVER_LIMITS = """\
max_payload: 1MB
max_pending: 64MB
ping_interval: "30s"
write_deadline: "10s"
lame_duck_duration: "30s"
authorization { timeout: 10 }
"""


class Requester(Protocol):
    """What pushing an account needs of a NATS client."""

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 0.5) -> Any: ...


@dataclasses.dataclass(frozen=True, slots=True)
class IssuedCredential:
    """A creds file's content, a secret, and what to remember of it: `user_key` is what a revocation names."""

    text: str = dataclasses.field(repr=False)
    user_key: str
    expires_at_ms: int


class _Saved(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The realm's file: seeds by name."""

    operator: str
    system: str
    fleet: str
    app: str
    sign_services: str
    sign_daemon: str
    sign_boot: str
    created_at_ms: int


_KEYS = [name for name in _Saved.__struct_fields__ if name != "created_at_ms"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Realm:
    """All keys of one bus. What `sign_daemon` and `sign_boot` sign has the rights of that role only."""

    operator: credentials.KeyPair
    system: credentials.KeyPair
    fleet: credentials.KeyPair
    app: credentials.KeyPair
    sign_services: credentials.KeyPair
    sign_daemon: credentials.KeyPair
    sign_boot: credentials.KeyPair
    created_at_ms: int
    time: clock.Clock = dataclasses.field(default_factory=clock.SystemClock, repr=False)

    @classmethod
    def create(cls, time: clock.Clock | None = None) -> "Realm":
        """A new realm with new keys, not saved yet."""
        time = time or clock.SystemClock()
        return cls(
            operator=credentials.new_operator_key(),
            system=credentials.new_account_key(),
            fleet=credentials.new_account_key(),
            app=credentials.new_account_key(),
            sign_services=credentials.new_account_key(),
            sign_daemon=credentials.new_account_key(),
            sign_boot=credentials.new_account_key(),
            created_at_ms=time.now_ms(),
            time=time,
        )

    @classmethod
    def load(cls, path: pathlib.Path, time: clock.Clock | None = None) -> "Realm":
        """The realm kept in `path`.

        Raises:
            OSError: The file cannot be read.
            errors.InvalidParams: It is no realm.
        """
        try:
            saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
        except msgspec.MsgspecError as error:
            raise errors.InvalidParams(f"cannot read the realm in {path}: {error}") from error
        keys = {name: credentials.KeyPair(getattr(saved, name)) for name in _KEYS}
        return cls(**keys, created_at_ms=saved.created_at_ms, time=time or clock.SystemClock())

    def save(self, path: pathlib.Path) -> None:
        """Keep the realm in `path`, readable by its owner only."""
        seeds = {name: getattr(self, name).seed for name in _KEYS}
        files.write_private(path, msgspec.json.encode(_Saved(**seeds, created_at_ms=self.created_at_ms)))

    def server_config(self, jwt_dir: pathlib.Path) -> str:
        """What nats-server needs to know this realm; ports, JetStream and logs are the caller's to add.

        `jwt_dir` is where the server keeps account JWTs pushed to it. The preloaded ones are as old as the
        realm, so a restart with this text never undoes a pushed revocation.
        """
        born_s = self.created_at_ms // 1000 - 1  # a push within the first second is still newer
        preload = {
            self.system.public: self._account_jwt(self.system, "SYS", born_s),
            self.fleet.public: self._fleet_jwt(born_s, {}),
            self.app.public: self._app_jwt(born_s),
        }
        accounts = "".join(f"  {public}: {jwt}\n" for public, jwt in preload.items())
        return (
            f"operator: {self._operator_jwt(born_s)}\n"
            f"system_account: {self.system.public}\n"
            f'resolver: {{ type: full, dir: {json.dumps(str(jwt_dir))}, interval: "2m" }}\n'
            f"resolver_preload: {{\n{accounts}}}\n"
            f"{_SERVER_LIMITS}"
        )

    def service_creds(self, name: rights.ServiceName) -> str:
        """The creds text of one service, with a key of its own; connect with `rights.inbox_prefix(name)`."""
        claims = rights.service_permissions(name, fleet_account=self.fleet.public)
        if name == "system":
            return self._user_creds(self.system, self.system, name, claims)
        return self._user_creds(self.sign_services, self.app, name, claims)

    def monitor_creds(self, project: ids.ProjectId) -> str:
        """The creds text of somebody who may only listen to one project's events.

        Raises:
            errors.InvalidParams: It is no project id; a wildcard would be every project.
        """
        claims = rights.monitor_permissions(ids.project_id(project))
        return self._user_creds(self.sign_services, self.app, f"monitor-{project}", claims)

    def fleet_jwt(self, revocations: Mapping[str, int]) -> str:
        """FLEET as of now, for `push_account`.

        Args:
            revocations: User key to unix seconds: what was issued to it up to then is void and its
                connections are cut. Everything still in force must be listed; some 11,000 fit a message.
                Never revoke and reissue one key within the same second.
        """
        return self._fleet_jwt(self._now_s(), revocations)

    def app_jwt(self) -> str:
        """APP as of now, for `push_account` after an upgrade changed the exports."""
        return self._app_jwt(self._now_s())

    def _now_s(self) -> int:
        return self.time.now_ms() // 1000

    def _operator_jwt(self, issued_at_s: int) -> str:
        claims = {"type": "operator", "version": 2, "system_account": self.system.public}
        return credentials.mint(
            self.operator,
            subject=self.operator.public,
            name="paddock",
            claims=claims,
            issued_at_s=issued_at_s,
        )

    def _fleet_jwt(self, issued_at_s: int, revocations: Mapping[str, int]) -> str:
        return self._account_jwt(
            self.fleet,
            "FLEET",
            issued_at_s,
            signing_keys=[
                _scope("daemon", self.sign_daemon, rights.daemon_permissions()),
                _scope("boot", self.sign_boot, rights.boot_permissions()),
            ],
            exports=[*(_service(subject) for subject in rights.DAEMON_CALLS), _stream(rights.DAEMON_CHUNKS)],
            imports=[_from(self.app, _service(subject)) for subject in rights.REPORTS],
            default_permissions=_NO_RIGHTS,
            revocations=dict(revocations),
        )

    def _app_jwt(self, issued_at_s: int) -> str:
        calls = [_from(self.fleet, _service(subject)) for subject in rights.DAEMON_CALLS]
        return self._account_jwt(
            self.app,
            "APP",
            issued_at_s,
            signing_keys=[self.sign_services.public],
            exports=[_service(subject) for subject in rights.REPORTS],
            imports=[*calls, _from(self.fleet, _stream(rights.DAEMON_CHUNKS))],
            default_permissions=_NO_RIGHTS,
            limits={**_ACCOUNT_LIMITS, **_JETSTREAM_LIMITS},
        )

    def _account_jwt(self, account: credentials.KeyPair, name: str, issued_at_s: int, **claims: Any) -> str:
        claims = {"type": "account", "version": 2, "limits": _ACCOUNT_LIMITS, **claims}
        return credentials.mint(
            self.operator, subject=account.public, name=name, claims=claims, issued_at_s=issued_at_s
        )

    def _user_creds(
        self, signer: credentials.KeyPair, account: credentials.KeyPair, name: str, claims: Mapping[str, Any]
    ) -> str:
        user = credentials.new_user_key()
        claims = {"type": "user", "version": 2, "issuer_account": account.public, **claims}
        jwt = credentials.mint(
            signer, subject=user.public, name=name, claims=claims, issued_at_s=self._now_s()
        )
        return credentials.creds_text(jwt, user.seed)


def daemon_creds(
    signing_seed: str, fleet_account: str, sandbox: str, *, ttl_s: int, time: clock.Clock | None = None
) -> IssuedCredential:
    """A credential for the daemon of one sandbox, and of no other generation of its machine.

    Args:
        signing_seed: Of `Realm.sign_daemon`; with that of `sign_boot` the credential may only enrol.
        fleet_account: `Realm.fleet.public`.
        sandbox: Becomes the name that fills in the rights.
        ttl_s: Seconds until the server cuts the connection and refuses a new one.

    Raises:
        errors.InvalidParams: It is no sandbox id. The name `*` would be every sandbox's rights.
    """
    ids.split_sandbox(sandbox)
    now_s = (time or clock.SystemClock()).now_ms() // 1000
    user = credentials.new_user_key()
    # A scoped key's users must not bring rights of their own, not even limits.
    claims = {"type": "user", "version": 2, "pub": {}, "sub": {}, "issuer_account": fleet_account}
    jwt = credentials.mint(
        credentials.KeyPair(signing_seed),
        subject=user.public,
        name=sandbox,
        claims=claims,
        issued_at_s=now_s,
        expires_at_s=now_s + ttl_s,
    )
    return IssuedCredential(credentials.creds_text(jwt, user.seed), user.public, (now_s + ttl_s) * 1000)


async def push_account(system: Requester, account_jwt: str) -> None:
    """Give the servers a new version of an account; revoked connections are cut within milliseconds.

    Args:
        system: Connected with the credentials of `system`.
        account_jwt: From `Realm.fleet_jwt` or `Realm.app_jwt`. The server does not ask who signed it,
            but lets nobody into an account of a foreign operator: whoever holds `system` can lock us out, not get in.

    Raises:
        errors.BadAnswer: A server refused it.
        nats.errors.Error: The bus did not carry it.
    """
    reply = await system.request(CLAIMS_UPDATE, account_jwt.encode(), timeout=PUSH_TIMEOUT_S)
    answer = json.loads(reply.data)
    if "error" in answer:
        raise errors.BadAnswer(
            "cannot update the account: the server refused it", detail=str(answer["error"])
        )


def _scope(role: str, key: credentials.KeyPair, template: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "user_scope", "key": key.public, "role": role, "template": template}


def _service(subject: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "type": "service", "response_threshold": _REPLY_THRESHOLD_NS}


def _stream(subject: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "type": "stream"}


def _from(account: credentials.KeyPair, export: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("name", "subject", "type")
    return {**{member: export[member] for member in wanted}, "account": account.public}
