import pytest

from paddock.contracts import errors, ids

BAD_IDS = ["", "A", "m-1", "m.1", "*", ">", "m 1", "é", "x" * 41, "m1\n", "m\x00"]


def test_made_ids_are_valid_and_differ() -> None:
    made = [ids.new_machine_id() for _ in range(200)] + [ids.new_project_id() for _ in range(200)]

    assert len(set(made)) == 400
    assert all(ids.machine_id(one) == one for one in made)


@pytest.mark.parametrize("text", BAD_IDS)
def test_what_could_escape_a_subject_is_no_id(text: str) -> None:
    with pytest.raises(errors.InvalidParams):
        ids.machine_id(text)
    with pytest.raises(errors.InvalidParams):
        ids.project_id(text)


@pytest.mark.parametrize("text", ["", "a b", "a.b", "x" * 129, "a\n", "é"])
def test_a_call_id_is_a_token(text: str) -> None:
    with pytest.raises(errors.InvalidParams):
        ids.call_id(text)


def test_a_call_id_may_be_a_ulid_or_name_a_step() -> None:
    ulid = ids.new_ulid(1_700_000_000_000)

    assert ids.call_id(ulid) == ulid
    assert ids.call_id("1-setup_0-ab12-1") == "1-setup_0-ab12-1"


def test_ulids_sort_by_time_and_have_the_length_of_one() -> None:
    early, late = ids.new_ulid(1_000), ids.new_ulid(1_001)

    assert early < late
    assert {len(early), len(late)} == {26}


def test_a_sandbox_id_comes_apart_as_it_was_put_together() -> None:
    assert ids.split_sandbox(ids.sandbox_id(ids.MachineId("m1"), 12)) == ("m1", 12)


@pytest.mark.parametrize("text", ["m1", "m1-0", "m1-01", "m1-x", "-1", "M1-1", "m1-1-1", "m1-1\n", "*-1"])
def test_nothing_else_is_a_sandbox_id(text: str) -> None:
    with pytest.raises(errors.InvalidParams):
        ids.split_sandbox(text)
