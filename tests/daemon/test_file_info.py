"""file.stat and file.list: what is there, said truthfully, whatever its name and kind."""

import asyncio
import base64
import hashlib
import os
import pathlib
import socket
import stat
import time

import pytest

from paddock.contracts import errors, files
from paddock.daemon import file_info, file_slices
from tests.daemon import file_work


def look(path: object, **more: bool) -> files.FileInfo:
    return file_work.done(file_info.look(files.StatParams(path=str(path), **more), "/nowhere"))


def listed(path: object, **more: object) -> files.ListResult:
    params = files.ListParams(path=str(path), **more)  # type: ignore[arg-type]
    return file_work.done(file_info.list_folder(params, "/nowhere"))


def names(result: files.ListResult) -> list[str]:
    return [entry.name for entry in result.entries]


def test_a_file_is_told_with_size_mode_owner_and_moment(home: pathlib.Path) -> None:
    (home / "f").write_bytes(b"12345")
    (home / "f").chmod(0o640)
    os.utime(home / "f", (0, 1_700_000_000.25))
    info = look(home / "f")

    assert (info.path, info.name, info.kind, info.size) == (str(home / "f"), "f", "file", 5)
    assert (info.mode, info.modified_at_ms, info.sha256) == (0o640, 1_700_000_000_250, "")
    assert info.user == (home / "f").owner()
    assert info.group == (home / "f").group()


def test_an_owner_nobody_named_is_told_by_number(home: pathlib.Path) -> None:
    numbers = list(home.stat())
    numbers[stat.ST_UID], numbers[stat.ST_GID] = 54321, 54322
    found = os.stat_result(numbers, {"st_mtime_ns": 0, "st_ctime_ns": 0})
    info = file_info.Describer().info(str(home), found)

    assert (info.user, info.group) == ("54321", "54322")


def test_the_digest_is_of_all_of_it(home: pathlib.Path) -> None:
    content = os.urandom(3_000_001)
    (home / "f").write_bytes(content)

    assert look(home / "f", digest=True).sha256 == hashlib.sha256(content).hexdigest()


def test_the_version_changes_with_the_content_though_size_and_moment_stay(home: pathlib.Path) -> None:
    (home / "f").write_text("one")
    before = look(home / "f")
    moment = (home / "f").stat().st_mtime_ns
    time.sleep(0.02)  # the kernel's own moments are that coarse
    (home / "f").write_text("two")
    os.utime(home / "f", ns=(moment, moment))

    assert look(home / "f").version != before.version
    assert look(home / "f").version == look(home / "f").version


def test_a_link_is_told_as_such_or_as_its_target(home: pathlib.Path) -> None:
    (home / "f").write_text("abc")
    (home / "link").symlink_to("f")
    link, target = look(home / "link", follow=False), look(home / "link")

    assert (link.kind, link.target) == ("symlink", "f")
    assert (target.kind, target.size, target.name) == ("file", 3, "link")


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("missing", errors.NoSuchPath),
        ("f/below", errors.NotADirectory),
        ("loop", errors.BadPath),
        ("x" * 256, errors.BadPath),
        ("../f", errors.BadPath),
        ("dangling", errors.NoSuchPath),
    ],
)
def test_what_cannot_be_looked_at_is_a_typed_fault(
    home: pathlib.Path, path: str, fault: type[errors.Fault]
) -> None:
    (home / "f").write_text("")
    (home / "loop").symlink_to("loop")
    (home / "dangling").symlink_to("nowhere")

    with pytest.raises(fault, match=r"^cannot "):
        look(f"{home}/{path}")


def test_digests_are_of_regular_files_only_and_nothing_hangs(home: pathlib.Path) -> None:
    os.mkfifo(home / "pipe")
    with pytest.raises(errors.BadPath):
        look(home / "pipe", digest=True)
    with pytest.raises(errors.IsADirectory):
        look(home, digest=True)

    assert look(home / "pipe").kind == "other"
    assert look("/dev/null").kind == "other"
    assert look(home).kind == "directory"


def test_the_digest_of_a_link_itself_is_refused(home: pathlib.Path) -> None:
    (home / "f").write_text("")
    (home / "link").symlink_to("f")

    with pytest.raises(errors.BadPath):
        look(home / "link", digest=True, follow=False)


def test_without_the_right_to_look_it_is_said_so() -> None:
    with file_work.seen_by_all() as folder:
        (folder / "shut").mkdir()
        (folder / "shut/f").write_text("")
        (folder / "shut").chmod(0)
        (folder / "f").write_text("")
        (folder / "f").chmod(0)
        faults = [
            file_work.as_nobody(lambda: look(folder / "shut/f")),
            file_work.as_nobody(lambda: listed(folder / "shut")),
            file_work.as_nobody(lambda: look(folder / "f", digest=True)),
        ]
        (folder / "shut").chmod(0o755)

    assert [type(fault) for fault in faults] == [errors.PermissionDenied] * 3


def test_a_folder_is_listed_by_name_with_all_kinds(home: pathlib.Path) -> None:
    (home / "b").write_text("")
    (home / "a").mkdir()
    (home / "c").symlink_to("nowhere")
    os.mkfifo(home / "d")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/cwd/{os.path.relpath(home / 'e')}")
    result = listed(home)

    assert [(entry.name, entry.kind) for entry in result.entries] == [
        ("a", "directory"),
        ("b", "file"),
        ("c", "symlink"),
        ("d", "other"),
        ("e", "other"),
    ]
    assert result.entries[2].target == "nowhere"
    assert result.is_last


def test_pages_follow_each_other_without_gap_or_repetition(home: pathlib.Path) -> None:
    for number in range(25):
        (home / f"{number:02}").write_text("")
    found: list[str] = []
    pages = 0
    while True:
        page = listed(home, limit=10, after=found[-1] if found else "")
        found += names(page)
        pages += 1
        if page.is_last:
            break

    assert found == [f"{number:02}" for number in range(25)]
    assert pages == 3


def test_a_page_that_ends_with_the_folder_is_the_last(home: pathlib.Path) -> None:
    for name in "ab":
        (home / name).write_text("")

    assert listed(home, limit=2).is_last
    assert not listed(home, limit=1).is_last


def test_an_empty_folder_has_one_empty_page(home: pathlib.Path) -> None:
    assert listed(home) == files.ListResult(entries=[], is_last=True)


def test_names_with_newlines_and_without_utf_8_are_shown_and_given_as_bytes(home: pathlib.Path) -> None:
    folder = os.fsencode(home)
    for name in (b"new\nline", b"\xff\xfe", b"\xfe\xff", "grün".encode()):
        os.close(os.open(folder + b"/" + name, os.O_CREAT | os.O_WRONLY))
    entries = listed(home).entries

    assert [entry.name for entry in entries] == ["\\xfe\\xff", "\\xff\\xfe", "grün", "new\nline"]
    assert [base64.b64decode(entry.name_base64) for entry in entries] == [b"\xfe\xff", b"\xff\xfe", b"", b""]
    assert entries[0].path == f"{home}/\\xfe\\xff"


def test_names_that_look_the_same_are_never_cut_apart(home: pathlib.Path) -> None:
    folder = os.fsencode(home)
    for name in (b"\xff", b"\\xff", b"z"):
        os.close(os.open(folder + b"/" + name, os.O_CREAT | os.O_WRONLY))
    first = listed(home, limit=1)

    assert names(first) == ["\\xff", "\\xff"]
    assert names(listed(home, limit=1, after="\\xff")) == ["z"]


@pytest.mark.parametrize(
    ("path", "fault"),
    [("f", errors.NotADirectory), ("missing", errors.NoSuchPath), ("loop", errors.BadPath)],
)
def test_what_is_no_folder_cannot_be_listed(home: pathlib.Path, path: str, fault: type[errors.Fault]) -> None:
    (home / "f").write_text("")
    (home / "loop").symlink_to("loop")

    with pytest.raises(fault):
        listed(home / path)


async def test_a_folder_with_100_000_names_does_not_hold_up_the_loop(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "huge"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    target = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(target)
    for number in range(100_000):
        os.symlink("x", f"{number:06}", dir_fd=fd)
    os.close(fd)
    listing = file_slices.start(
        file_info.list_folder(files.ListParams(path=str(folder), limit=1000, after="050000"), "/")
    )
    longest, rounds = 0.0, 0
    while not listing.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest, rounds = max(longest, time.perf_counter() - began), rounds + 1
    page = listing.result()

    assert (page.entries[0].name, len(page.entries), page.is_last) == ("050001", 1000, False)
    assert rounds > 5
    assert longest < 0.25


def test_nothing_is_said_to_be_regular_that_is_not() -> None:
    assert [file_info.kind(mode) for mode in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR)] == [
        "file",
        "directory",
        "symlink",
        "other",
    ]
