"""The catalogue: codes and kinds belong to one fault each, and every fault has something to say."""

import re

import pytest

from paddock.contracts import errors

FAULTS = errors.Fault.__subclasses__()
STANDARD = {
    -32700: "parse_error",
    -32600: "invalid_request",
    -32601: "method_not_found",
    -32602: "invalid_params",
    -32603: "internal",
}


def test_no_code_and_no_kind_is_used_twice() -> None:
    assert len({fault.code for fault in FAULTS}) == len(FAULTS)
    assert len({fault.kind for fault in FAULTS}) == len(FAULTS)
    assert len(errors.catalogue()) == len(FAULTS)


def test_standard_codes_keep_their_meaning_and_ours_are_positive() -> None:
    assert {fault.code: fault.kind for fault in FAULTS if fault.code < 0} == STANDARD


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_has_a_sentence_and_a_stable_kind(fault: type[errors.Fault]) -> None:
    sentence = (fault.__doc__ or "").strip()

    assert re.fullmatch(r"[A-Z][^\n]*\.", sentence), sentence
    assert re.fullmatch(r"[a-z][a-z_]*", fault.kind)
    assert fault().message == sentence
    assert isinstance(fault.retryable, bool)


def test_a_fault_says_what_it_was_told_to_and_keeps_detail_apart() -> None:
    fault = errors.Conflict("cannot do it", data={"a": 1}, detail="for the log")

    assert (str(fault), fault.message, fault.data) == ("cannot do it", "cannot do it", {"a": 1})
    assert "for the log" not in str(fault)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_arrives_as_it_was_sent(fault: type[errors.Fault]) -> None:
    arrived = errors.from_wire(fault.code, "cannot", {"a": 1})

    assert type(arrived) is fault
    assert (arrived.message, arrived.data) == ("cannot", {"a": 1})


def test_a_code_of_a_newer_peer_is_kept() -> None:
    arrived = errors.from_wire(9999, "cannot yet", {"a": 1})

    assert isinstance(arrived, errors.RemoteFault)
    assert arrived.data == {"a": 1, "code": 9999}
