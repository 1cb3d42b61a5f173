import json

import pytest

from paddock.contracts import errors, events, ids

P, M = ids.ProjectId("p1"), ids.MachineId("m1")


def made(event_type: str = events.MACHINE_CREATED) -> events.Event:
    return events.new(
        event_type,
        event_id="01",
        at_ms=1_700_000_000_123,
        project=P,
        machine=M,
        sequence=7,
        actor="t1",
        causation_id="00",
        data={"phase": "created", "text": "é\n"},
    )


@pytest.mark.parametrize("event_type", events.ALL)
def test_an_event_is_read_as_it_was_written(event_type: str) -> None:
    event = made(event_type)

    assert events.decode(events.encode(event)) == event


def test_an_event_is_a_cloud_event() -> None:
    members = json.loads(events.encode(made()))

    assert members["specversion"] == "1.0"
    assert {"id", "source", "type", "subject", "time", "data", "projectid", "machineid"} <= set(members)
    assert all(name.isalnum() and name.islower() for name in members), "CloudEvents attribute names"
    assert members["time"] == "2023-11-14T22:13:20.123Z"


def test_an_event_without_a_machine_is_about_its_project() -> None:
    event = events.new(events.PROJECT_CREATED, event_id="1", at_ms=0, project=P)

    assert event.subject == P
    assert event.nats_subject() == "project.created.p1.all"
    assert "machineid" not in json.loads(events.encode(event))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"id":1}', b"\xff", b'"\xff"', b'{"id":"\xff"}'])
def test_what_is_no_event_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(errors.ParseError):
        events.decode(body)


def test_a_newer_members_event_can_still_be_read() -> None:
    members = {**json.loads(events.encode(made())), "dataschema": "x"}

    assert events.decode(json.dumps(members).encode()) == made()


def test_event_types_are_facts_of_two_tokens_and_differ() -> None:
    assert len(set(events.ALL)) == len(events.ALL)
    assert all(len(one.split(".")) == 2 for one in events.ALL)


def test_whoever_is_woken_is_woken_by_known_events() -> None:
    wakes = {*events.WAKES_PROVISIONER, *events.WAKES_SETUP_PUSHER, *events.WAKES_PROBER}

    assert wakes <= set(events.ALL)
