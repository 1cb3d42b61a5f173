"""The table of moves is sound: no machine can get stuck in a phase, and delete works from everywhere."""

import pytest

from paddock.contracts import events, phases

ALL = list(phases.Phase)


def ways_out(phase: phases.Phase) -> set[phases.Phase]:
    return {move.target for move in phases.MOVES if phase in move.sources and move.target is not phase}


def reachable(start: phases.Phase) -> set[phases.Phase]:
    seen, to_visit = {start}, [start]
    while to_visit:
        new = ways_out(to_visit.pop()) - seen
        seen |= new
        to_visit += new
    return seen


@pytest.mark.parametrize("phase", sorted(phases.UNFINISHED))
def test_every_unfinished_phase_has_a_way_out_when_its_limit_passes(phase: phases.Phase) -> None:
    assert phase in phases.FAIL.sources
    assert len(ways_out(phase)) > 1


@pytest.mark.parametrize("phase", [p for p in ALL if p not in {phases.Phase.DELETING, phases.Phase.DELETED}])
def test_delete_is_possible_from_every_phase(phase: phases.Phase) -> None:
    assert phase in phases.DELETE.sources


def test_only_deleted_is_the_end() -> None:
    assert [phase for phase in ALL if not ways_out(phase)] == [phases.Phase.DELETED]
    assert {phases.Phase.DELETED} == phases.ENDED


@pytest.mark.parametrize("phase", [p for p in ALL if p is not phases.Phase.DELETED])
def test_every_phase_leads_to_deleted(phase: phases.Phase) -> None:
    assert phases.Phase.DELETED in reachable(phase)


def test_a_new_machine_can_become_active_and_a_failed_one_again() -> None:
    assert phases.Phase.ACTIVE in reachable(phases.Phase.CREATED)
    assert phases.RETRY.sources == {phases.Phase.FAILED}
    assert phases.Phase.ACTIVE in reachable(phases.Phase.FAILED)


def test_a_machine_that_is_being_deleted_comes_back_by_no_move() -> None:
    assert ways_out(phases.Phase.DELETING) == {phases.Phase.DELETED}


@pytest.mark.parametrize("move", phases.MOVES, ids=lambda move: move.name)
def test_a_move_announces_a_known_event_and_limits_what_is_unfinished(move: phases.Move) -> None:
    assert move.event in events.ALL
    assert (move.limit_s is not None) == (move.target in phases.UNFINISHED)


def test_moves_have_names_of_their_own() -> None:
    assert len({move.name for move in phases.MOVES}) == len(phases.MOVES)


def test_every_stage_has_a_lane_and_a_limit() -> None:
    assert set(phases.LANE_OF) == set(phases.Stage)
    assert set(phases.ATTEMPT_LIMIT_S) == set(phases.Stage)


def test_what_people_may_call_has_a_daemon_to_answer() -> None:
    assert phases.CALLABLE <= phases.GUEST_REACHABLE
