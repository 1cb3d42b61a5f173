"""How one request ended: with its value, or with the fault to answer.

For doors that answer with something other than a bus reply; what an exception becomes is said in `faults`.
"""

from collections.abc import Awaitable
from typing import TypeVar

from paddock.bus import faults
from paddock.contracts import errors

T = TypeVar("T")


async def settled(work: Awaitable[T], *, method: str, request_id: str) -> T | errors.Fault:
    """Await `work`, the handling of one request; a fault and a bug alike come back as the fault to answer.

    Args:
        work: One request's handling.
        method: What was asked, for the log.
        request_id: Finds the log line of a bug; the caller gets it as `data.requestId`.

    Cancellation: passes through; nothing is answered.
    """
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the one place around a request; see faults
        return faults.of(error, method=method, request_id=request_id)
