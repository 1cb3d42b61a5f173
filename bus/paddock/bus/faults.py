"""The one place where an exception becomes an answer.

A fault of the catalogue leaves as it is, without its `detail`. Anything else is a bug: it is logged here,
once, with its traceback, and leaves as `Internal` with the request id that finds it in the log and no text of
its own.
"""

import msgspec

from paddock.bus import logs
from paddock.contracts import errors, rpc

log = logs.get(__name__)


def of(error: Exception, *, method: str, request_id: str) -> errors.Fault:
    """The fault that answers a request whose handler raised `error`."""
    if isinstance(error, errors.Fault):
        log.debug("rpc_refused", method=method, kind=error.kind, detail=error.detail)
        return error
    log.error("rpc_failed", cause=error, method=method, request_id=request_id)
    return errors.Internal(data={"requestId": request_id})


def unreadable(error: Exception) -> errors.Fault:
    """The fault for a body that is no request."""
    if isinstance(error, errors.InvalidRequest):
        return error
    if isinstance(error, msgspec.ValidationError):
        return errors.InvalidRequest()
    return errors.ParseError()


def response(fault: errors.Fault, request_id: str | int | None) -> rpc.Response:
    """The fault as an answer to one request."""
    body = rpc.ErrorBody(code=fault.code, message=fault.message, data=fault.data)
    return rpc.Response(id=request_id, error=body)
