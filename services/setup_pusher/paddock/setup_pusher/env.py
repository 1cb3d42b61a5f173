"""Pushing the environment file: what the machine holds is compared by digest, and written only when it differs.

The file is 0600. "Applied" is what the machine confirmed by digest, never what we believe to have sent.
"""

from paddock.bus import logs
from paddock.contracts import daemon, errors
from paddock.setup_pusher import environment, guest

log = logs.get(__name__)
MODE = 0o600


async def apply(machine: guest.Guest, wanted: environment.Environment) -> bool:
    """See to it that the machine has this environment.

    Returns:
        Whether the file was written; False when it was there already.

    Raises:
        errors.SetupFailed: The machine took it and then did not have it.
        errors.Fault: The machine refused it, such as `disk_full`.
    """
    if await _has(machine, wanted):
        return False
    await machine.write_file(daemon.ENV_FILE, wanted.text, mode=MODE)
    if not await _has(machine, wanted):
        raise errors.SetupFailed(
            f"cannot push the environment: {daemon.ENV_FILE} is not what was written; something else changes it"
        )
    log.info("env_written", sandbox_id=machine.sandbox, variables=len(wanted.variables))
    return True


async def _has(machine: guest.Guest, wanted: environment.Environment) -> bool:
    held = await machine.look_at(daemon.ENV_FILE)
    return held is not None and held.sha256 == wanted.sha256 and held.mode & 0o777 == MODE
