import pytest

from paddock.contracts import errors, events, ids, subjects

S = ids.sandbox_id(ids.MachineId("m1"), 2)
P, M = ids.ProjectId("p1"), ids.MachineId("m1")


@pytest.mark.parametrize(
    "subject",
    [
        subjects.rpc_call(S),
        subjects.rpc_control(S),
        subjects.report_call(S),
        subjects.report_beat(S),
        subjects.out(S, "c", "1"),
    ],
)
def test_a_subject_about_a_sandbox_says_which(subject: str) -> None:
    assert subjects.sandbox_of(subject) == S


@pytest.mark.parametrize("subject", ["", "rpc", "rpc.m1-1", "machine.created.p1.m1", "svc.registrar.call"])
def test_other_subjects_name_no_sandbox(subject: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        subjects.sandbox_of(subject)


def test_a_wildcard_is_no_sandbox() -> None:
    with pytest.raises(errors.InvalidParams):
        subjects.sandbox_of("rpc.*.call")


@pytest.mark.parametrize("event_type", events.ALL)
def test_every_event_fits_the_stream_and_its_own_filter(event_type: str) -> None:
    tokens = subjects.event(event_type, P, M).split(".")

    assert len(tokens) == 4
    assert any(matches(pattern, tokens) for pattern in subjects.EVENT_SUBJECTS)
    assert matches(subjects.event_filter(event_type), tokens)


def test_an_event_of_a_project_stands_for_all_machines() -> None:
    assert subjects.event(events.PROJECT_CREATED, P, None) == "project.created.p1.all"


def test_a_caller_hears_chunks_of_every_daemon_for_itself_only() -> None:
    mine = subjects.out_for("gateway-1")

    assert matches(mine, subjects.out(S, "gateway-1", "7").split("."))
    assert not matches(mine, subjects.out(S, "gateway-2", "7").split("."))


def test_a_dead_letter_keeps_where_it_came_from() -> None:
    assert subjects.dead_letter("prober", "machine.created.p1.m1") == "dlq.prober.machine.created.p1.m1"


def matches(pattern: str, tokens: list[str]) -> bool:
    parts = pattern.split(".")
    return len(parts) == len(tokens) and all(
        part in {"*", token} for part, token in zip(parts, tokens, strict=True)
    )
