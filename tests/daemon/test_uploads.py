"""Uploads: parts in order, once each, whole in the end or not at all, through lost answers, refusals and restarts."""

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import stat
from typing import Any

import pytest

from paddock.bus import clock
from paddock.contracts import errors, files
from paddock.daemon import file_upload, uploads
from tests.daemon import file_work
from tests.support import processes

DAY_S = 24 * 3600
CONTENT = b"0123456789" * 30_000


class Sender:
    """Sends to one daemon's uploads; `restarted` is the same machine after a kill of that daemon."""

    def __init__(self, home: pathlib.Path, now: clock.Clock) -> None:
        self.home = home
        self.records = home / ".paddock/uploads"
        self._now = now
        self.uploads = uploads.Uploads(self.records, str(home), now)

    def restarted(self) -> "Sender":
        return Sender(self.home, self._now)

    async def write(
        self, path: str, part: bytes = b"", offset: int = 0, upload: str = "u1", **more: Any
    ) -> int:
        params = files.WriteParams(path=path, upload=upload, offset=offset, **more)
        return (await self.uploads.write(params, part)).received

    async def commit(
        self, path: str, content: bytes = CONTENT, upload: str = "u1", **more: Any
    ) -> files.FileInfo:
        sha256 = more.pop("sha256", hashlib.sha256(content).hexdigest())
        params = files.CommitParams(path=path, upload=upload, size=len(content), sha256=sha256, **more)
        await self.uploads.settle(upload)
        work = self.uploads.begin_commit(params)
        await asyncio.wait({work.done})
        return work.outcome()

    async def send(
        self, path: str, content: bytes = CONTENT, upload: str = "u1", **more: Any
    ) -> files.FileInfo:
        await self.write(path, content, upload=upload)
        return await self.commit(path, content, upload, **more)

    def parts(self, folder: str = ".") -> list[pathlib.Path]:
        return list((self.home / folder).glob(".paddock-*.part"))

    def known(self) -> list[pathlib.Path]:
        return list(self.records.iterdir()) if self.records.exists() else []


@pytest.fixture
def now() -> clock.ManualClock:
    return clock.ManualClock(clock.SystemClock().now_ms())


@pytest.fixture
def sender(home: pathlib.Path, now: clock.ManualClock) -> Sender:
    return Sender(home, now)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_nothing_shows_before_the_commit_and_all_of_it_after(sender: Sender) -> None:
    assert await sender.write("~/f") == 0
    assert await sender.write("~/f", CONTENT[:1000]) == 1000
    assert await sender.write("~/f", CONTENT[1000:], 1000) == len(CONTENT)
    assert not (sender.home / "f").exists()
    info = await sender.commit("~/f")

    assert (sender.home / "f").read_bytes() == CONTENT
    assert (info.path, info.size, info.sha256) == (str(sender.home / "f"), len(CONTENT), sha256(CONTENT))
    assert info.mode == 0o644
    assert sender.parts() == []


async def test_an_empty_file_is_an_upload_without_parts(sender: Sender) -> None:
    await sender.write("~/f")
    await sender.commit("~/f", b"")

    assert (sender.home / "f").read_bytes() == b""


async def test_parts_that_come_together_are_taken_in_their_order(sender: Sender) -> None:
    pieces = [os.urandom(10_000) for _ in range(40)]
    async with asyncio.TaskGroup() as tasks:
        written = [
            tasks.create_task(sender.write("~/f", piece, number * 10_000))
            for number, piece in enumerate(pieces)
        ]

    assert [task.result() for task in written] == [10_000 * (number + 1) for number in range(40)]
    await sender.commit("~/f", b"".join(pieces))


async def test_what_was_received_is_not_taken_twice(sender: Sender) -> None:
    await sender.write("~/f", CONTENT[:1000])

    assert await sender.write("~/f", CONTENT[:1000]) == 1000
    assert await sender.write("~/f", CONTENT[500:2000], 500) == 2000
    assert await sender.write("~/f") == 2000
    await sender.write("~/f", CONTENT[2000:], 2000)
    await sender.commit("~/f")


async def test_a_gap_is_refused_with_how_much_there_is(sender: Sender) -> None:
    with pytest.raises(errors.BadOffset) as before:
        await sender.write("~/f", b"x", 10)
    await sender.write("~/f", b"12345")
    with pytest.raises(errors.BadOffset) as after:
        await sender.write("~/f", b"x", 10)
    with pytest.raises(errors.BadOffset) as early:
        await sender.commit("~/f")

    assert [fault.value.data for fault in (before, after, early)] == [
        {"sizeBytes": 0},
        {"sizeBytes": 5},
        {"sizeBytes": 5},
    ]


async def test_an_upload_that_never_began_leaves_nothing_and_cannot_be_committed(sender: Sender) -> None:
    with pytest.raises(errors.BadOffset):
        await sender.write("~/f", b"x", 10)
    with pytest.raises(errors.NotFound):
        await sender.commit("~/f", upload="other")

    assert (sender.parts(), sender.known(), sender.uploads._entries) == ([], [], {})


async def test_what_is_not_what_was_sent_is_given_up(sender: Sender) -> None:
    for wrong in ({"sha256": "0" * 64}, {"content": CONTENT[:-1]}):
        await sender.write("~/f", CONTENT)
        with pytest.raises(errors.Conflict, match="not what was sent"):
            await sender.commit("~/f", **wrong)
        assert sender.parts() == []
    assert await sender.write("~/f") == 0


async def test_an_upload_is_for_one_path(sender: Sender) -> None:
    await sender.write("~/f", CONTENT)
    with pytest.raises(errors.Conflict, match="this upload is for"):
        await sender.write("~/g", b"")
    with pytest.raises(errors.Conflict, match="this upload is for"):
        await sender.commit("~/g")


async def test_the_mode_of_the_old_file_stays_unless_another_is_wanted(sender: Sender) -> None:
    (sender.home / "f").write_text("old")
    (sender.home / "f").chmod(0o750)
    kept = await sender.send("~/f")
    given = await sender.send("~/f", upload="u2", mode=0o600)
    umask = os.umask(0o077)
    try:
        new = await sender.send("~/new", upload="u3")
    finally:
        os.umask(umask)

    assert (kept.mode, given.mode, new.mode) == (0o750, 0o600, 0o644)
    assert stat.S_IMODE((sender.home / "f").stat().st_mode) == 0o600


async def test_the_owner_of_the_old_file_stays_where_we_may_give_files_away(sender: Sender) -> None:
    (sender.home / "f").write_text("old")
    file_work.give_away(sender.home / "f")
    owner = (sender.home / "f").stat().st_uid
    await sender.send("~/f")

    assert (sender.home / "f").stat().st_uid == owner


async def test_a_reader_of_the_old_file_sees_the_old_one(sender: Sender) -> None:
    (sender.home / "f").write_text("old")
    with (sender.home / "f").open() as reader:
        await sender.send("~/f")

        assert reader.read() == "old"


async def test_a_link_stays_and_its_target_is_replaced(sender: Sender) -> None:
    (sender.home / "folder").mkdir()
    (sender.home / "link").symlink_to("folder/f")
    info = await sender.send("~/link")

    assert (sender.home / "link").is_symlink()
    assert (sender.home / "folder/f").read_bytes() == CONTENT
    assert info.path == str(sender.home / "link")


async def test_missing_folders_are_made_only_where_that_was_asked_for(sender: Sender) -> None:
    with pytest.raises(errors.NoSuchPath):
        await sender.write("~/a/b/f", CONTENT)
    await sender.write("~/a/b/f", CONTENT, parents=True)
    await sender.commit("~/a/b/f")

    assert (sender.home / "a/b/f").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("relative", errors.BadPath),
        ("~/a/../f", errors.BadPath),
        ("~/folder", errors.IsADirectory),
        ("~/new/", errors.IsADirectory),
        ("~/pipe", errors.BadPath),
        ("~/loop", errors.BadPath),
        ("~/f/below", errors.NotADirectory),
        ("~/new\nline", errors.BadPath),
        ("~/" + "x" * 256, errors.BadPath),
        ("/proc/self/fd/1", errors.BadPath),
        ("/proc/new", errors.NoSuchPath),
        ("~/dangling", errors.NoSuchPath),
    ],
)
async def test_a_path_that_cannot_be_written_is_refused_at_the_first_part(
    sender: Sender, path: str, fault: type[errors.Fault]
) -> None:
    (sender.home / "folder").mkdir()
    (sender.home / "f").write_text("")
    os.mkfifo(sender.home / "pipe")
    (sender.home / "loop").symlink_to("loop")
    (sender.home / "dangling").symlink_to("nowhere/f")
    with pytest.raises(fault, match=r"^cannot "):
        await sender.write(path, CONTENT)

    assert (sender.parts(), sender.known(), sender.uploads._entries) == ([], [], {})


async def test_what_takes_the_path_meanwhile_is_not_replaced(sender: Sender) -> None:
    await sender.write("~/f", CONTENT)
    (sender.home / "f").mkdir()
    with pytest.raises(errors.IsADirectory):
        await sender.commit("~/f")
    (sender.home / "f").rmdir()

    assert (await sender.commit("~/f")).size == len(CONTENT)


async def test_without_the_right_to_write_it_is_said_so(sender: Sender) -> None:
    with file_work.seen_by_all() as folder:
        upload = file_upload.Upload("u1", folder / "records", "/nowhere")
        (folder / "records").mkdir(mode=0o777)
        file_work.give_away(folder / "records")
        params = files.WriteParams(path=str(folder / "f"), upload="u1")
        outcomes = file_work.as_nobody(lambda: upload.take([(params, b"x")]))

        assert isinstance(outcomes, list)
        assert isinstance(outcomes[0], errors.PermissionDenied)
        assert list((folder / "records").iterdir()) == []


async def test_a_commit_asked_for_again_answers_the_same(sender: Sender) -> None:
    first = await sender.send("~/f")
    (sender.home / "f").write_text("changed since")

    assert await sender.commit("~/f") == first
    assert await sender.restarted().commit("~/f") == first
    assert (sender.home / "f").read_text() == "changed since"
    with pytest.raises(errors.Conflict, match="with another content"):
        await sender.commit("~/f", b"other")


async def test_parts_that_come_again_after_the_commit_change_nothing(sender: Sender) -> None:
    await sender.send("~/f")

    assert await sender.write("~/f", CONTENT[:100]) == len(CONTENT)
    with pytest.raises(errors.Conflict, match="is done"):
        await sender.write("~/f", b"more", len(CONTENT))
    assert sender.parts() == []


async def test_two_commits_at_once_are_one(sender: Sender) -> None:
    await sender.write("~/f", CONTENT)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(sender.commit("~/f")) for _ in range(5)]

    assert len({task.result().version for task in asked}) == 1


async def test_of_two_uploads_to_one_path_the_last_commit_wins_and_both_were_whole(sender: Sender) -> None:
    one, two = CONTENT, CONTENT[::-1]
    await sender.write("~/f", one[:1000], upload="u1")
    await sender.write("~/f", two[:1000], upload="u2")
    await sender.write("~/f", one[1000:], 1000, upload="u1")
    await sender.write("~/f", two[1000:], 1000, upload="u2")
    await sender.commit("~/f", two, "u2")
    assert (sender.home / "f").read_bytes() == two
    await sender.commit("~/f", one, "u1")

    assert (sender.home / "f").read_bytes() == one


async def test_uploads_committed_at_once_leave_one_of_them_whole(sender: Sender) -> None:
    contents = {f"u{number}": bytes([number]) * 200_000 for number in range(8)}
    async with asyncio.TaskGroup() as tasks:
        for upload, content in contents.items():
            tasks.create_task(sender.send("~/f", content, upload))

    assert (sender.home / "f").read_bytes() in contents.values()
    assert sender.parts() == []


async def test_what_is_not_expected_is_not_replaced_and_the_upload_is_kept(sender: Sender) -> None:
    (sender.home / "f").write_bytes(b"there")
    await sender.write("~/f", CONTENT)
    for expected in ("absent", sha256(b"other")):
        with pytest.raises(errors.Conflict) as caught:
            await sender.commit("~/f", expected_sha256=expected)
        assert caught.value.data == {"sha256": sha256(b"there")}
    await sender.commit("~/f", expected_sha256=sha256(b"there"))

    assert (sender.home / "f").read_bytes() == CONTENT


async def test_expected_to_be_absent_it_is_made_only_where_nothing_is(sender: Sender) -> None:
    await sender.send("~/f", expected_sha256="absent")
    await sender.write("~/f", b"x", upload="u2")
    with pytest.raises(errors.Conflict):
        await sender.commit("~/f", b"x", "u2", expected_sha256=sha256(b"other"))
    (sender.home / "f").unlink()
    with pytest.raises(errors.Conflict) as caught:
        await sender.commit("~/f", b"x", "u2", expected_sha256=sha256(CONTENT))
    (sender.home / "f").symlink_to("nowhere")
    await sender.commit("~/f", b"x", "u2", expected_sha256="absent")

    assert caught.value.data == {"sha256": "absent"}
    assert (sender.home / "nowhere").read_bytes() == b"x"


async def test_of_many_that_expect_the_same_one_wins(sender: Sender) -> None:
    for expected, before in (("absent", None), (sha256(b"old"), b"old")):
        (sender.home / "f").unlink(missing_ok=True)
        if before is not None:
            (sender.home / "f").write_bytes(before)
        won: list[bytes] = []

        async def one(content: bytes, expected: str = expected, won: list[bytes] = won) -> None:
            upload = f"u{content[0]}-{expected[:6]}"
            with contextlib.suppress(errors.Conflict):
                await sender.send("~/f", content, upload, expected_sha256=expected)
                won.append(content)

        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(one(bytes([number]) * 1000))

        assert won == [(sender.home / "f").read_bytes()]


async def test_after_a_restart_it_goes_on_where_it_was(sender: Sender) -> None:
    await sender.write("~/f", CONTENT[:123_456])
    again = sender.restarted()

    assert await again.write("~/f") == 123_456
    with pytest.raises(errors.BadOffset) as caught:
        await again.write("~/f", b"x", 200_000)
    await again.write("~/f", CONTENT[123_456:], 123_456)
    info = await again.restarted().commit("~/f")

    assert caught.value.data == {"sizeBytes": 123_456}
    assert info.sha256 == sha256(CONTENT)
    assert (sender.home / "f").read_bytes() == CONTENT


async def test_killed_between_the_rename_and_its_record_the_commit_is_done(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sender.write("~/f", CONTENT)
    monkeypatch.setattr(file_upload.Upload, "_finish", _die)
    with pytest.raises(Killed):
        await sender.commit("~/f")
    monkeypatch.undo()
    assert (sender.home / "f").read_bytes() == CONTENT
    info = await sender.restarted().commit("~/f")

    assert (info.size, info.sha256) == (len(CONTENT), sha256(CONTENT))


class Killed(Exception):
    pass


def _die(*_: object, **__: object) -> None:
    raise Killed


async def test_killed_before_the_rename_the_commit_can_be_asked_for_again(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sender.home / "f").write_text("old")
    file_work.give_away(sender.home / "f")
    await sender.write("~/f", CONTENT)
    monkeypatch.setattr(os, "rename", _die)
    with pytest.raises(Killed):
        await sender.commit("~/f")
    monkeypatch.undo()
    assert (sender.home / "f").read_text() == "old"
    await sender.restarted().commit("~/f")

    assert (sender.home / "f").read_bytes() == CONTENT


async def test_a_part_file_that_somebody_removed_begins_anew(sender: Sender) -> None:
    await sender.write("~/f", CONTENT[:1000])
    sender.parts()[0].unlink()
    again = sender.restarted()
    with pytest.raises(errors.BadOffset) as caught:
        await again.write("~/f", CONTENT[1000:], 1000)

    assert caught.value.data == {"sizeBytes": 0}
    await again.send("~/f")


async def test_a_record_nobody_can_read_is_as_none(sender: Sender) -> None:
    await sender.write("~/f", CONTENT[:1000])
    sender.known()[0].write_text("{")

    assert await sender.restarted().write("~/f") == 0


async def test_an_abort_removes_what_was_received_and_may_be_repeated(sender: Sender) -> None:
    await sender.write("~/f", CONTENT)
    for _ in range(2):
        await sender.uploads.abort(files.AbortParams(upload="u1"))
    with pytest.raises(errors.NotFound):
        await sender.commit("~/f")

    assert (sender.parts(), sender.known(), sender.uploads._entries) == ([], [], {})


async def test_an_abort_after_the_commit_changes_nothing(sender: Sender) -> None:
    first = await sender.send("~/f")
    await sender.uploads.abort(files.AbortParams(upload="u1"))

    assert await sender.commit("~/f") == first
    assert (sender.home / "f").read_bytes() == CONTENT


async def test_an_abort_after_a_restart_finds_the_part_file(sender: Sender) -> None:
    await sender.write("~/f", CONTENT)
    await sender.restarted().uploads.abort(files.AbortParams(upload="u1"))

    assert (sender.parts(), sender.known()) == ([], [])


@pytest.mark.parametrize("is_restarted", [True, False])
async def test_what_nobody_goes_on_with_for_a_day_is_removed(
    sender: Sender, now: clock.ManualClock, is_restarted: bool
) -> None:
    await sender.write("~/old", CONTENT, upload="old")
    await sender.send("~/done", upload="done")
    before = processes.open_fds()
    then = sender.restarted() if is_restarted else sender
    now.advance(DAY_S - 60)
    await then.uploads.remove_abandoned()
    assert len(sender.parts()) == 1
    now.advance(120)
    await then.uploads.remove_abandoned()

    assert (sender.parts(), sender.known(), then.uploads._entries) == ([], [], {})
    assert (sender.home / "done").exists()
    assert processes.open_fds() <= before


async def test_one_that_goes_on_is_kept_however_old_it_is(sender: Sender, now: clock.ManualClock) -> None:
    await sender.write("~/f", CONTENT[:1000])
    then = now.now_ms() / 1000 + DAY_S
    now.advance(DAY_S + 60)
    os.utime(sender.parts()[0], (then, then))
    await sender.uploads.remove_abandoned()

    assert await sender.write("~/f") == 1000


async def test_with_nothing_there_nothing_is_removed(sender: Sender) -> None:
    await sender.uploads.remove_abandoned()

    assert not sender.records.exists()


async def test_an_upload_that_rests_holds_no_file_open(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "REST_S", 0.05)
    before = processes.open_fds()
    for number in range(20):
        await sender.write(f"~/{number}", CONTENT, upload=f"u{number}")
    await processes.until(lambda: processes.open_fds() <= before)

    assert await sender.write("~/3", b"x", len(CONTENT), "u3") == len(CONTENT) + 1


async def test_ids_that_differ_in_case_or_are_long_are_different_uploads(sender: Sender) -> None:
    for upload in ("a", "A", "x" * 128, "x" * 127):
        await sender.write(f"~/{upload[:3]}{len(upload)}", b"1", upload=upload)

    assert len(sender.known()) == 4


async def test_records_say_no_content(sender: Sender) -> None:
    await sender.write("~/f", b"secret content")
    record = json.loads(sender.known()[0].read_text())

    assert record["path"] == str(sender.home / "f")
    assert b"secret" not in sender.known()[0].read_bytes()
    assert stat.S_IMODE(sender.known()[0].stat().st_mode) == 0o600
