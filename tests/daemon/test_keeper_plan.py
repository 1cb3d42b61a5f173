"""What a command is started with, and the search for its program."""

import errno
import os
import pathlib

import pytest

from paddock.daemon import keeper_plan


def tried(plan: keeper_plan.Plan, *numbers: int) -> tuple[list[bytes], str]:
    """Which files were tried when they fail like this, and what came of it."""
    files: list[bytes] = []
    left = list(numbers)

    def execute(file: bytes) -> int:
        files.append(file)
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return 7

    try:
        return files, str(plan.run(execute))
    except keeper_plan.FailedError as failed:
        return files, f"{failed.what} {errno.errorcode[failed.errno]}"


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    """Three folders with a program `it`, and one without."""
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "it").touch()
    return f"{tmp_path}/a:{tmp_path}/none:{tmp_path}/b:{tmp_path}/c"


def test_a_name_is_looked_for_on_path_and_only_where_it_is(path: str, tmp_path: pathlib.Path) -> None:
    plan = keeper_plan.Plan(["it", "x"], {"PATH": path}, "/")
    files = [f"{tmp_path}/{name}/it".encode() for name in "abc"]

    assert tried(plan) == (files[:1], "7")
    assert tried(plan, errno.EACCES) == (files[:2], "7")
    assert tried(plan, errno.ENOENT, errno.ENOTDIR) == (files, "7")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((errno.EACCES, errno.ENOENT, errno.ENOENT), "command EACCES"),
        ((errno.ENOENT, errno.EACCES, errno.ENOENT), "command EACCES"),
        ((errno.ENOENT, errno.ENOENT, errno.ENOENT), "interpreter ENOENT"),
        ((errno.ENOEXEC,), "command ENOEXEC"),
        ((errno.EACCES, errno.E2BIG), "command E2BIG"),
        ((errno.EAGAIN,), "spawn EAGAIN"),
        ((errno.ENOMEM,), "spawn ENOMEM"),
    ],
)
def test_the_reason_is_the_one_that_helps(path: str, numbers: tuple[int, ...], said: str) -> None:
    plan = keeper_plan.Plan(["it"], {"PATH": path}, "/")

    assert tried(plan, *numbers)[1] == said


def test_a_name_that_is_nowhere_is_tried_nowhere(path: str) -> None:
    assert tried(keeper_plan.Plan(["other"], {"PATH": path}, "/")) == ([], "command ENOENT")
    assert tried(keeper_plan.Plan(["it"], {"PATH": ""}, "/")) == ([], "command ENOENT")


def test_a_name_with_a_slash_is_itself(path: str) -> None:
    plan = keeper_plan.Plan(["./it"], {"PATH": path}, "/")

    assert tried(plan, errno.ENOENT) == ([b"./it"], "command ENOENT")


def test_without_a_path_the_usual_folders_are_searched() -> None:
    assert tried(keeper_plan.Plan(["sh"], {}, "/"))[0][0] in {
        b"/usr/local/bin/sh",
        b"/usr/bin/sh",
        b"/bin/sh",
    }


def test_bytes_that_are_no_text_pass_unchanged() -> None:
    plan = keeper_plan.Plan(["echo", "\udcff"], {"A": "\udcfe"}, "/\udcfd")

    assert (plan.argv, plan.env, plan.cwd) == ([b"echo", b"\xff"], {b"A": b"\xfe"}, b"/\xfd")
