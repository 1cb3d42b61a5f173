"""Calls with a side effect, on disk before they act: so that none ever acts twice.

A call is written before it begins, with a digest of what was asked; then the process it started; then its end with the
answer. One `write(2)` a line and no fsync: it survives kill -9 of the daemon, not a loss of power. Ended calls are kept
for a day after their end; an unended one for as long as it takes. One writer (the daemon's lock).

On a full disk a reserve is given up first, so that a command which makes room can still be run.

One file an hour, so that forgetting is removing whole files and nothing is ever rewritten. Of an ended call only its place
is in memory: a machine that runs thousands of commands a day must not pay for each.
"""

import errno
import os
import pathlib
import struct
from typing import Literal

import msgspec

from paddock.bus import clock, logs
from paddock.contracts import errors
from paddock.daemon import paths

KEPT_MS = 24 * 3600 * 1000
SEGMENT_MS = 3600 * 1000
SEGMENT_BYTES = 64 * 1024 * 1024
RESERVE_BYTES = 256 * 1024
"""Some hundred calls."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SUFFIX = ".jsonl"
_NO_RESULT = msgspec.Raw()
_PLACE = struct.Struct("<III")
"""Segment, offset, length of a call's last line."""

log = logs.get(__name__)


class Call(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of one call."""

    call_id: str
    method: str
    digest: str
    began_at_ms: int
    ended_at_ms: int = 0
    namespace: str = ""
    pid: int = 0
    ticks: int = 0
    timeout_s: float = 0
    segment: int = 0

    @property
    def is_ended(self) -> bool:
        return self.ended_at_ms > 0


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fault as it is kept."""

    code: int
    message: str
    data: dict[str, object] = {}


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line; each repeats what a reader needs, so that older files can go."""

    call_id: str
    method: str
    digest: str
    began_at_ms: int
    is_: Literal["begun", "spawned", "ended"] = msgspec.field(name="is")
    ended_at_ms: int = 0
    namespace: str = ""
    pid: int = 0
    ticks: int = 0
    timeout_s: float = 0
    result: msgspec.Raw = _NO_RESULT
    failure: Failure | None = None


class _Segment:
    """One file of the journal."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.number = int(path.stem)
        self.size_bytes = 0
        self.opened_at_ms = 0
        self.last_ended_at_ms = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


class Journal:
    """The journal in one folder; `open` it before use."""

    def __init__(self, folder: pathlib.Path, now: clock.Clock) -> None:
        self._folder = folder
        self._clock = now
        self._unended: dict[str, Call] = {}
        self._ended: dict[str, bytes] = {}
        self._unsaved: dict[str, _Line] = {}
        self._segments: list[_Segment] = []
        self._fd = -1

    def open(self) -> None:
        """Read what is there and begin a new file. Lines that a kill cut short are passed over.

        Raises:
            OSError: The folder cannot be used.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = (path for path in self._folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())
        for path in sorted(names, key=lambda path: int(path.stem)):
            if path.stat().st_size:
                self._load(path)
            else:
                path.unlink()  # of a daemon that was never asked anything
        self._begin_segment()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def find(self, call_id: str) -> Call | None:
        """What is known of this call.

        Raises:
            errors.OutcomeUnknown: It ended, and what is kept of it cannot be read.
        """
        call = self._unended.get(call_id)
        if call is not None or not self._is_known(call_id):
            return call
        return _call(self._line(call_id))

    def unended(self) -> list[Call]:
        """The calls without an end, oldest first."""
        return list(self._unended.values())

    def begin(self, call_id: str, method: str, digest: str) -> Call:
        """Write that a call begins. Nothing of it may be done before this returns.

        Raises:
            errors.Fault: It could not be written; the call must not begin.
        """
        call = Call(call_id=call_id, method=method, digest=digest, began_at_ms=self._clock.now_ms())
        try:
            self._append(call, _line(call, "begun"))
        except OSError as error:
            raise paths.fault(error, "begin: the journal of calls cannot be written") from error
        self._unended[call_id] = call
        return call

    def spawned(self, call: Call, *, namespace: str, pid: int, ticks: int, timeout_s: float = 0) -> None:
        """Write which process carries the call out, and how long it may take from its start."""
        call.namespace, call.pid, call.ticks, call.timeout_s = namespace, pid, ticks, timeout_s
        self._save(call, _line(call, "spawned"))

    def succeeded(self, call: Call, result: msgspec.Raw) -> None:
        """Write the end of a call and its answer."""
        self._end(call, result=result)

    def failed(self, call: Call, fault: errors.Fault) -> None:
        """Write the end of a call and the fault that is its answer."""
        self._end(call, failure=Failure(fault.code, fault.message, fault.data))

    def answer(self, call: Call) -> msgspec.Raw:
        """The answer of a call that is not under way, once more.

        Raises:
            errors.Fault: The fault that was its answer; or `OutcomeUnknown` when there is none.
        """
        line = self._line(call.call_id)
        if line.failure is not None:
            raise errors.from_wire(line.failure.code, line.failure.message, line.failure.data)
        return line.result

    def compact(self) -> None:
        """Forget calls that ended a day ago, begin a new file when the current one is old or large, keep a reserve."""
        now_ms = self._clock.now_ms()
        current = self._segments[-1]
        if now_ms - current.opened_at_ms >= SEGMENT_MS or current.size_bytes >= SEGMENT_BYTES:
            self._begin_segment()
        kept: list[_Segment] = []
        for segment in self._segments:
            old = segment.last_ended_at_ms + KEPT_MS < now_ms and segment.opened_at_ms + KEPT_MS < now_ms
            if segment is self._segments[-1] or not old:
                kept.append(segment)
            else:
                self._forget(segment)
        self._segments = kept
        self._keep_reserve()

    def _keep_reserve(self) -> None:
        path = self._folder / "reserve"
        try:
            if not path.exists() or path.stat().st_size < RESERVE_BYTES:
                with path.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            path.unlink(missing_ok=True)

    def _give_up_reserve(self) -> bool:
        path = self._folder / "reserve"
        if not path.exists():
            return False
        path.unlink()
        log.warning("journal_uses_its_reserve", hint="free disk space")
        return True

    def _forget(self, segment: _Segment) -> None:
        places = [(call_id, _PLACE.unpack(place)[0]) for call_id, place in self._ended.items()]
        for call_id, number in places:
            if number == segment.number:
                del self._ended[call_id]
        for call in self._unended.values():
            if call.segment == segment.number:
                # Still running after a day: carried over before its file goes.
                self._save(call, _line(call, "spawned" if call.pid else "begun"))
        segment.path.unlink(missing_ok=True)

    def _end(self, call: Call, *, result: msgspec.Raw = _NO_RESULT, failure: Failure | None = None) -> None:
        call.ended_at_ms = self._clock.now_ms()
        line = msgspec.structs.replace(_line(call, "ended"), result=result, failure=failure)
        place = self._save(call, line)
        if place is None:
            self._unsaved[call.call_id] = line
        else:
            self._ended[call.call_id] = place
        del self._unended[call.call_id]
        self._segments[-1].last_ended_at_ms = call.ended_at_ms

    def _save(self, call: Call, line: _Line) -> bytes | None:
        """Write a line that may fail: what happened has happened, and is at least remembered while we live."""
        try:
            return self._append(call, line)
        except OSError as error:
            log.warning("journal_not_written", call_id=call.call_id, error=str(error), hint="free disk space")
            return None

    def _append(self, call: Call, line: _Line) -> bytes:
        """Write a line; returns its place."""
        data = _encoder.encode(line) + b"\n"
        segment = self._segments[-1]
        try:
            self._write(data)
        except OSError as error:
            if error.errno not in _FULL or not self._give_up_reserve():
                raise
            self._write(data)
        place = _PLACE.pack(segment.number, segment.size_bytes, len(data))
        call.segment = segment.number
        segment.size_bytes += len(data)
        return place

    def _write(self, data: bytes) -> None:
        if os.write(self._fd, data) < len(data):
            # A disk that fills up takes the first part; leave no half line before the next one.
            os.ftruncate(self._fd, self._segments[-1].size_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _begin_segment(self) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        segment = _Segment(self._folder / f"{number:08d}{_SUFFIX}")
        segment.opened_at_ms = self._clock.now_ms()
        fd = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd = fd
        self._segments.append(segment)

    def _load(self, path: pathlib.Path) -> None:
        segment = _Segment(path)
        with path.open("rb") as file:
            for data in file:
                self._load_line(segment, data)
                segment.size_bytes += len(data)
        segment.opened_at_ms = int(path.stat().st_mtime * 1000)
        self._segments.append(segment)

    def _load_line(self, segment: _Segment, data: bytes) -> None:
        try:
            line = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        segment.last_ended_at_ms = max(segment.last_ended_at_ms, line.ended_at_ms)
        if line.is_ == "ended":
            self._unended.pop(line.call_id, None)
            self._ended[line.call_id] = _PLACE.pack(segment.number, segment.size_bytes, len(data))
        else:
            self._unended[line.call_id] = _call(line, segment.number)

    def _is_known(self, call_id: str) -> bool:
        return call_id in self._ended or call_id in self._unsaved

    def _line(self, call_id: str) -> _Line:
        """The last line of an ended call."""
        unsaved = self._unsaved.get(call_id)
        if unsaved is not None:
            return unsaved
        place = self._ended.get(call_id)
        try:
            if place is not None:
                number, offset, length = _PLACE.unpack(place)
                with (self._folder / f"{number:08d}{_SUFFIX}").open("rb") as file:
                    file.seek(offset)
                    return _decoder.decode(file.read(length))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("journal_not_readable", call_id=call_id, error=str(error))
        raise errors.OutcomeUnknown("the call began, and its answer cannot be read")


def _call(line: _Line, segment: int = 0) -> Call:
    return Call(
        call_id=line.call_id,
        method=line.method,
        digest=line.digest,
        began_at_ms=line.began_at_ms,
        ended_at_ms=line.ended_at_ms,
        namespace=line.namespace,
        pid=line.pid,
        ticks=line.ticks,
        timeout_s=line.timeout_s,
        segment=segment,
    )


def _line(call: Call, is_: Literal["begun", "spawned", "ended"]) -> _Line:
    return _Line(
        call_id=call.call_id,
        method=call.method,
        digest=call.digest,
        began_at_ms=call.began_at_ms,
        is_=is_,
        ended_at_ms=call.ended_at_ms,
        namespace=call.namespace,
        pid=call.pid,
        ticks=call.ticks,
        timeout_s=call.timeout_s,
    )
