"""Credentials for daemons: made for one sandbox, recorded before they leave."""

from paddock.bus import accounts, logs, responder
from paddock.contracts import errors, ids, services
from paddock.registrar.settings import Settings
from paddock.store import machines, process, sandboxes

log = logs.get(__name__)


class Issuer:
    """Holds the key that signs daemons' credentials; no other service does."""

    def __init__(self, context: process.Context, settings: Settings) -> None:
        """Read the signing key.

        Raises:
            errors.InvalidParams: The key file cannot be read.
        """
        self._context = context
        self._account = settings.registrar_fleet_account
        self._ttl_s = settings.registrar_credential_ttl_s
        try:
            self._seed = settings.registrar_daemon_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            path = settings.registrar_daemon_key_file
            raise errors.InvalidParams(f"cannot read the daemon signing key in {path}: {error}") from error

    async def issue(self, params: services.IssueParams, _call: responder.CallContext) -> services.IssueResult:
        """A credential for the current generation of a machine; asking again makes another.

        Raises:
            errors.MachineGone: The machine is not known, or has moved on to another generation.
        """
        machine_id = ids.machine_id(params.machine_id)
        sandbox = ids.sandbox_id(machine_id, params.generation)
        made = accounts.daemon_creds(
            self._seed, self._account, sandbox, ttl_s=self._ttl_s, time=self._context.clock
        )
        async with self._context.store.write(actor=self._context.owner) as tx:
            machine = await machines.lock(tx, machine_id)
            if machine is None or machine.generation != params.generation:
                raise errors.MachineGone(
                    f"cannot issue a credential for {sandbox}: it is not the current sandbox"
                )
            await sandboxes.issued(
                tx,
                user_key=made.user_key,
                machine=machine_id,
                generation=params.generation,
                expires_at_ms=made.expires_at_ms,
            )
        log.info("credential_issued", machine_id=machine_id, generation=params.generation, user=made.user_key)
        return services.IssueResult(
            credentials=made.text, user_key=made.user_key, expires_at_ms=made.expires_at_ms
        )
