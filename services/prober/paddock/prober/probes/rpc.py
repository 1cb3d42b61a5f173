"""The daemon answers a ping, and it is the daemon that said ready."""

from paddock.contracts import daemon, errors, rpc
from paddock.prober import target


async def ask(machine: target.Target, *, timeout_s: float) -> None:
    """Ping.

    Raises:
        errors.ProbeFailed: It did not answer, or another boot did.
    """
    try:
        answer = await machine.call(daemon.PING, rpc.Empty(), timeout_s=timeout_s)
    except errors.Fault as fault:
        raise errors.ProbeFailed(
            f"cannot ping the daemon: {fault.message}", data={"kind": fault.kind}
        ) from fault
    if answer.boot_id != machine.boot:
        # Its own ready is on the way, and with it a setup that starts over.
        raise errors.ProbeFailed("cannot trust the ping: the daemon was restarted since it said ready")
