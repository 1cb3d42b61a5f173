"""Parts and summaries of what commands wrote, and pages of commands, read from disk. Blocks: call it in a thread."""

import base64
import codecs
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

from paddock.contracts import errors
from paddock.contracts import executions as wire
from paddock.daemon import exec_answer, exec_record, output

PAGE_BYTES_MAX = 2 * 1024 * 1024
"""Of the commands in one page, whose arguments may be long."""
_CONTINUATION_MAX = 3
_CONTINUES, _CONTINUES_MASK = 0x80, 0xC0
"""How the bytes of a UTF-8 character begin that are not its first."""


def page(
    shelf: pathlib.Path, asked: Sequence[str], limit: int, facts: Mapping[str, Mapping[str, object]]
) -> wire.ListResult:
    """How the first of these commands are: at most `limit`, and fewer when they are long."""
    found: list[wire.Execution] = []
    size_bytes = 0
    for exec_id in asked:
        if len(found) == limit or size_bytes > PAGE_BYTES_MAX:
            return wire.ListResult(executions=found, is_last=False)
        record = exec_record.read(shelf / exec_id)
        if record is not None:  # it may be old enough to have been removed just now
            found.append(exec_answer.execution(shelf, record, facts.get(exec_id)))
            size_bytes += sum(map(len, record.command))
    return wire.ListResult(executions=found)


def part(shelf: pathlib.Path, record: exec_record.Record, params: wire.OutputParams) -> wire.OutputResult:
    """A part of one stream.

    Raises:
        errors.BadOffset: It begins beyond the end.
        errors.OutputLimit: It is no longer kept.
        OSError: The disk refused.
    """
    # In this order: of one that has ended, the size is final.
    is_ended = exec_answer.state(record) != "running"
    first, size = exec_answer.bounds(shelf, record, params.stream)
    fault = exec_answer.out_of_bounds(params.offset, first, size)
    if fault is not None:
        raise fault
    data = _read(shelf, record, params.stream, params.offset, min(params.length, size - params.offset))
    content, encoding = _text(data)
    return wire.OutputResult(
        offset=params.offset,
        content=content,
        encoding=encoding,
        first_offset=first,
        size_bytes=size,
        is_ended=is_ended,
    )


def summary(
    shelf: pathlib.Path, record: exec_record.Record, now: wire.Execution, limit_bytes: int
) -> wire.SummaryResult:
    """The beginning and the end of both streams.

    Raises:
        OSError: The disk refused.
    """
    stdout, stdout_omitted = _ends(shelf, record, "stdout", limit_bytes)
    stderr, stderr_omitted = _ends(shelf, record, "stderr", limit_bytes)
    return wire.SummaryResult(
        execution=now,
        stdout=stdout,
        stderr=stderr,
        stdout_omitted_bytes=stdout_omitted,
        stderr_omitted_bytes=stderr_omitted,
    )


def _ends(
    shelf: pathlib.Path, record: exec_record.Record, stream: wire.StreamName, limit_bytes: int
) -> tuple[str, int]:
    """The first and the last half of the limit, at whole characters, and how many bytes lie between.

    When the first bytes are no longer kept, all of it is the last bytes.
    """
    first, size = exec_answer.bounds(shelf, record, stream)
    if not first and size <= limit_bytes:
        return _read(shelf, record, stream, 0, size).decode("utf-8", "replace"), 0
    head = b"" if first else _read(shelf, record, stream, 0, limit_bytes // 2)
    tail_at = max(first, size - (limit_bytes - len(head)))
    tail = _read(shelf, record, stream, tail_at, size - tail_at)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    begin = decoder.decode(head)
    cut_head, cut_tail = len(decoder.getstate()[0]), _continuation(tail)
    return begin + tail[cut_tail:].decode("utf-8", "replace"), tail_at - len(head) + cut_head + cut_tail


def _continuation(data: bytes) -> int:
    """How many bytes at the beginning end a character that began before."""
    count = 0
    while count < min(_CONTINUATION_MAX, len(data)) and data[count] & _CONTINUES_MASK == _CONTINUES:
        count += 1
    return count


def _read(
    shelf: pathlib.Path, record: exec_record.Record, stream: wire.StreamName, offset: int, length: int
) -> bytes:
    reader = exec_answer.reader(shelf, record, stream)
    try:
        return reader.read(offset, length)
    except output.GivenUpError as error:
        given_up = exec_answer.out_of_bounds(offset, error.first_offset, error.size_bytes)
        raise given_up or errors.OutputLimit from error
    finally:
        reader.close()


def _text(data: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"
