"""`paddock cp` against the fake gateway."""

import asyncio
import json
import os
import pathlib
import shlex
import signal
import stat

import pytest

from paddock.client.commands import copying
from paddock.contracts import errors
from paddock.contracts.api import files
from tests.client.commands import conftest, person
from tests.support import fake_fleet, fake_gateway, fake_streams


@pytest.fixture
def fleet(gateway: fake_gateway.FakeGateway) -> fake_fleet.FakeFleet:
    gateway.fleet.folders |= {"~/app"}
    return gateway.fleet


@pytest.fixture
def here(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a file in it, which is the working directory."""
    (tmp_path / "a.bin").write_bytes(b"\x00a\xff" * 1000)
    (tmp_path / "a.bin").chmod(0o640)
    return tmp_path


def with_links(fleet: fake_fleet.FakeFleet, monkeypatch: pytest.MonkeyPatch, links: dict[str, str]) -> None:
    """Links in the machine: the fake one knows none."""
    info = fleet.info

    def with_them(path: str) -> files.FileInfo:
        if path not in links:
            return info(path)
        return info("~").model_copy(
            update={"path": path, "name": path.rpartition("/")[2], "kind": "symlink", "target": links[path]}
        )

    monkeypatch.setattr(fleet, "info", with_them)
    for path in links:
        fleet.files[path] = (b"", 0o777)


class TestTarget:
    @pytest.mark.parametrize(
        ("typed", "path"),
        [
            ("b.bin", "~/b.bin"),
            ("/tmp/b.bin", "/tmp/b.bin"),
            ("~/b.bin", "~/b.bin"),
            ("app", "~/app/a.bin"),
            ("app/", "~/app/a.bin"),
            ("", "~/a.bin"),
            ("./app//./b.bin", "~/app/b.bin"),
        ],
    )
    async def test_in_the_machine_is_where_cp_would_put_it(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
        typed: str,
        path: str,
    ) -> None:
        copied = await paddock("cp", "a.bin", f"{machine}:{typed}")

        assert (copied.exit_code, copied.output) == (0, "")
        assert fleet.files[path] == ((here / "a.bin").read_bytes(), 0o640)

    @pytest.mark.parametrize(
        ("typed", "path"), [("b.bin", "b.bin"), (".", "c.bin"), ("there/", "there/c.bin"), ("./x:y", "x:y")]
    )
    async def test_here_is_where_cp_would_put_it(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
        typed: str,
        path: str,
    ) -> None:
        (here / "there").mkdir()
        fleet.put("~/app/c.bin", b"\xfe" * 300_000, 0o750)

        copied = await paddock("cp", f"{machine}:app/c.bin", typed)

        assert (copied.exit_code, copied.output) == (0, "")
        assert (here / path).read_bytes() == b"\xfe" * 300_000
        assert stat.S_IMODE((here / path).stat().st_mode) & 0o700 == 0o700

    async def test_that_is_a_folder_takes_many(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        (here / "b.txt").write_text("b")

        copied = await paddock("cp", "a.bin", "b.txt", f"{machine}:app")

        assert copied.exit_code == 0
        assert {"~/app/a.bin", "~/app/b.txt"} <= fleet.files.keys()

    @pytest.mark.parametrize(
        ("arguments", "exit_code", "told"),
        [
            (("a.bin", "{m}:nowhere/"), 72, "there is no such folder"),
            (("a.bin", "{m}:nowhere/x"), 72, "~/nowhere does not exist"),
            (("a.bin", "a.bin", "{m}:nowhere"), 1, "there is no such folder"),
            (("nope", "{m}:x"), 72, "cannot copy nope on this computer: it is not there"),
            (("{m}:nope", "."), 72, "cannot look at ~/nope: it does not exist"),
            (("{m}:app", "."), 74, "it is a folder; to copy it whole, give -r"),
            ((".", "{m}:app"), 74, "it is a folder; to copy it whole, give -r"),
            (("{m}:app", "-"), 74, "it is a folder"),
            (("-", "{m}:app"), 74, "it is a folder, so give a file's name"),
            (("a.bin", "b.bin"), 78, "one side must be in a machine and the other here"),
            (("{m}:a", "{m}:b"), 78, "one side must be in a machine and the other here"),
            (("{m}:a", "other:b", "."), 78, "one side must be in a machine and the other here"),
            (("a.bin", "-", "{m}:app"), 78, "with - there is one source only"),
            (("", "{m}:app"), 78, "a path is empty"),
            (("a.bin", "BAD:app"), 78, "cannot use these parameters: machine_id"),
            (("a.bin", "nobody:app"), 72, "cannot find machine nobody"),
        ],
    )
    async def test_or_source_that_cannot_be_is_told(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
        arguments: tuple[str, ...],
        exit_code: int,
        told: str,
    ) -> None:
        if arguments[-1].startswith("nobody"):
            # The fake machines share their files and know of no others.
            fleet.upload = lambda asked: fleet._machine(asked.machine_id)  # type: ignore[assignment,method-assign,return-value]

        refused = await paddock("cp", *(one.format(m=machine) for one in arguments))

        assert told in refused.stderr
        assert refused.exit_code == exit_code


class TestStreams:
    async def test_standard_input_becomes_a_file(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str
    ) -> None:
        given = os.urandom(700_000)
        async with person.on_pipes(gateway, "cp", "-", f"{machine}:x") as process:
            output, remarks = await process.communicate(given)

        assert (process.returncode, output, remarks) == (0, b"", b"")
        assert fleet.files["~/x"][0] == given

    async def test_a_file_becomes_standard_output(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
    ) -> None:
        fleet.put("/tmp/x", b"\x00\xff\x1b" * 200_000)

        copied = await paddock("cp", f"{machine}:/tmp/x", "-")

        assert (copied.exit_code, copied.stdout_bytes) == (0, b"\x00\xff\x1b" * 200_000)

    async def test_bytes_that_are_not_what_the_machine_read_are_told(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
    ) -> None:
        fleet.put("/tmp/x", b"x")
        fleet.wrong_digests["/tmp/x"] = "0" * 64

        assert (await paddock("cp", f"{machine}:/tmp/x", "-")).exit_code == 76

    async def test_a_pipe_by_name_becomes_a_file(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        os.mkfifo(here / "pipe")
        async with person.on_pipes(gateway, "cp", "pipe", f"{machine}:app", cwd=here) as process:
            await asyncio.to_thread((here / "pipe").write_bytes, b"piped")
            await process.communicate()

        assert process.returncode == 0
        assert fleet.files["~/app/pipe"][0] == b"piped"

    async def test_a_pipe_nobody_reads_ends_us_in_silence(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str
    ) -> None:
        fleet.put("/tmp/x", b"x" * 1_000_000)
        reading, writing = os.pipe()
        os.close(reading)
        async with person.on_pipes(gateway, "cp", f"{machine}:/tmp/x", "-", stdout=writing) as process:
            os.close(writing)
            _, remarks = await process.communicate()

        assert (process.returncode, remarks) == (141, b"")


class TestFolders:
    @pytest.fixture
    def tree(self, here: pathlib.Path) -> pathlib.Path:
        top = here / "src"
        (top / "sub/empty").mkdir(parents=True)
        (top / "one").write_text("1")
        (top / "one").chmod(0o755)
        (top / "sub/two").write_bytes(b"2" * 300_000)
        (top / "sub/link").symlink_to("../one")
        return top

    async def test_go_up_whole_with_modes_and_links(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str, tree: pathlib.Path
    ) -> None:
        copied = await paddock("cp", "-r", "src", f"{machine}:new")

        assert (copied.exit_code, copied.output) == (0, "")
        assert {"~/new", "~/new/sub", "~/new/sub/empty"} <= fleet.folders
        assert fleet.files["~/new/one"] == (b"1", 0o755)
        assert fleet.files["~/new/sub/two"][0] == b"2" * 300_000
        assert fleet.commands_run[0].cwd == "~/new"
        assert fleet.commands_run[0].command[3:] == ["sh", "../one", "./sub/link"]

    @pytest.mark.parametrize(
        ("source", "inside"), [("src", "~/app/src"), ("src/", "~/app/src"), ("src/.", "~/app")]
    )
    async def test_go_into_a_folder_that_is_there(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        tree: pathlib.Path,
        source: str,
        inside: str,
    ) -> None:
        copied = await paddock("cp", "-r", source, f"{machine}:app")

        assert copied.exit_code == 0
        assert fleet.files[f"{inside}/one"] == (b"1", 0o755)

    async def test_come_down_whole_with_links(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fleet.folders |= {"~/app/sub", "~/app/sub/empty"}
        fleet.put("~/app/one", b"1", 0o755)
        fleet.put("~/app/sub/two", b"2" * 300_000)
        with_links(fleet, monkeypatch, {"~/app/sub/link": "../one"})

        copied = await paddock("cp", "-r", f"{machine}:app", "new")

        assert (copied.exit_code, copied.output) == (0, "")
        assert (here / "new/sub/empty").is_dir()
        assert (here / "new/sub/two").read_bytes() == b"2" * 300_000
        assert stat.S_IMODE((here / "new/one").stat().st_mode) & 0o700 == 0o700
        assert (here / "new/sub/link").readlink() == pathlib.Path("../one")

    async def test_no_file_is_written_through_a_link_below_the_target(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
    ) -> None:
        (here / "outside").write_text("mine")
        (here / "there/app").mkdir(parents=True)
        (here / "there/app/x").symlink_to(here / "outside")
        (here / "there/app/d").symlink_to(here)
        fleet.folders |= {"~/app/d"}
        fleet.put("~/app/d/a.bin", b"theirs")
        fleet.put("~/app/x", b"theirs")

        copied = await paddock("cp", "-r", f"{machine}:app", "there")

        assert copied.exit_code == 74
        assert "something that is no folder is there" in copied.stderr
        assert (here / "a.bin").read_bytes() != b"theirs"
        (here / "there/app/d").unlink()
        assert (await paddock("cp", "-r", f"{machine}:app", "there")).exit_code == 0
        assert (here / "outside").read_text() == "mine"
        assert not (here / "there/app/x").is_symlink()

    async def test_a_name_that_is_a_path_is_left_out(
        self,
        paddock: conftest.Paddock,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        info = fleet.info
        fleet.put("~/app/evil", b"theirs")
        monkeypatch.setattr(
            fleet,
            "info",
            lambda path: info(path).model_copy(update={"name": "../a.bin"} if path == "~/app/evil" else {}),
        )

        copied = await paddock("cp", "-r", f"{machine}:app", "new")

        assert copied.exit_code == 1
        assert f"left out {machine}:~/app/../a.bin: its name is none" in copied.stderr
        assert (here / "a.bin").read_bytes() != b"theirs"

    async def test_what_cannot_be_copied_is_left_out_and_the_rest_is_copied(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str, tree: pathlib.Path
    ) -> None:
        os.mkfifo(tree / "pipe")
        (tree / os.fsdecode(b"latin-\xe9")).write_text("x")
        fleet.folders |= {"~/new/one"}  # where a file is to be

        copied = await paddock("cp", "--json", "-r", "src", f"{machine}:new")

        shown = json.loads(copied.stdout)
        assert copied.exit_code == 1
        assert "left out src/pipe: it is neither a file nor a folder nor a link" in copied.stderr
        assert "its name is no UTF-8" in copied.stderr
        assert "left out one: cannot write ~/new/one: it is a directory" in copied.stderr
        assert (shown["files"], len(shown["leftOut"])) == (2, 3)
        assert "~/new/sub/two" in fleet.files

    async def test_a_machine_without_ln_keeps_its_links_out(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str, tree: pathlib.Path
    ) -> None:
        fleet.exec = lambda asked: fake_fleet.exec_result(0, stdout="0\n")

        copied = await paddock("cp", "-r", "src", f"{machine}:new")

        assert copied.exit_code == 1
        assert "left out sub/link: the link to ../one could not be made" in copied.stderr

    async def test_a_full_disk_ends_it_all(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str, tree: pathlib.Path
    ) -> None:
        fleet.disk_bytes = 1000

        copied = await paddock("cp", "-r", "src", f"{machine}:new")

        assert copied.exit_code == 74
        assert "the machine's disk is full" in copied.stderr

    @pytest.mark.parametrize("way", ["up", "down"])
    async def test_what_is_there_already_is_not_sent_again(
        self,
        paddock: conftest.Paddock,
        gateway: fake_gateway.FakeGateway,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        tree: pathlib.Path,
        way: str,
    ) -> None:
        big = tree / "sub/two"
        assert big.stat().st_size >= copying.COMPARED_FROM_BYTES
        arguments = ("src/.", f"{machine}:new") if way == "up" else (f"{machine}:new/.", "src/")
        await paddock("cp", "-r", "src", f"{machine}:new")
        gateway.asked.clear()

        copied = await paddock("cp", "-r", *arguments)

        moved = [
            params.path for name, params in gateway.asked if name in {"machine.fileWrite", "machine.fileRead"}
        ]
        assert copied.exit_code == 0
        assert [path for path in moved if path.endswith("two")] == []

    async def test_of_many_are_told_apart(
        self, paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        for folder, size in (("one", 900), ("two", 400)):
            (here / folder).mkdir()
            (here / folder / "same").write_bytes(b"x" * size)

        copied = await paddock("cp", "--json", "-r", "one", "two", f"{machine}:app")

        assert json.loads(copied.stdout) == {"files": 2, "bytes": 1300, "leftOut": []}
        assert {"~/app/one/same", "~/app/two/same"} <= fleet.files.keys()


class TestInterrupted:
    async def test_an_upload_goes_on_where_it_was(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        (here / "big").write_bytes(os.urandom(3_000_000))
        fleet.takes_parts = 8
        async with person.on_pipes(gateway, "cp", "big", f"{machine}:big", cwd=here) as process:
            async with asyncio.timeout(person.WITHIN_S):
                await fleet.is_stalled.wait()
            process.send_signal(signal.SIGINT)
            _, remarks = await process.communicate()
        fleet.takes_parts = None
        sent_bytes = fleet.bytes_uploaded
        async with person.on_pipes(gateway, "cp", "big", f"{machine}:big", cwd=here) as again:
            await again.communicate()

        assert (process.returncode, again.returncode) == (130, 0)
        assert remarks == b"paddock: stopped here; the same command goes on from here\n"
        assert sent_bytes >= 8 * 100_000
        assert fleet.bytes_uploaded == 3_000_000
        assert fleet.files["~/big"][0] == (here / "big").read_bytes()

    async def test_a_download_goes_on_where_it_was(
        self,
        gateway: fake_gateway.FakeGateway,
        fleet: fake_fleet.FakeFleet,
        machine: str,
        here: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        content = os.urandom(30_000_000)
        fleet.put("~/big", content)
        read_from = []
        whole = fleet.content

        def content_of(asked: files.MachineFileRead) -> tuple[files.FileInfo, bytes]:
            read_from.append(asked.offset)
            return whole(asked)

        fleet.content = content_of  # type: ignore[method-assign]
        nearly_sent = asyncio.Event()

        async def end(stream: fake_streams.Stream, result: files.FileRead) -> None:
            nearly_sent.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(fake_streams.Stream, "_end", end)
            async with person.on_pipes(gateway, "cp", f"{machine}:big", ".", cwd=here) as process:
                async with asyncio.timeout(person.WITHIN_S):
                    await nearly_sent.wait()
                process.send_signal(signal.SIGINT)
                await process.communicate()
        was_there = (here / "big").exists()
        async with person.on_pipes(gateway, "cp", f"{machine}:big", ".", cwd=here) as again:
            await again.communicate()

        assert (process.returncode, was_there, again.returncode) == (130, False, 0)
        assert read_from[0] == 0
        assert read_from[1] > 0
        assert (here / "big").read_bytes() == content

    async def test_a_folder_goes_on_by_the_words_that_are_told(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        (here / "my src").mkdir()
        for name in ("a", "b", "c"):
            (here / "my src" / name).write_bytes(os.urandom(1_000_000))
        fleet.takes_parts = 12
        async with person.on_pipes(gateway, "cp", "-r", "my src", f"{machine}:new", cwd=here) as process:
            async with asyncio.timeout(person.WITHIN_S):
                await fleet.is_stalled.wait()
            process.send_signal(signal.SIGINT)
            _, remarks = await process.communicate()
        told = remarks.decode().rpartition("go on with: paddock ")[2].strip()
        fleet.takes_parts = None
        async with person.on_pipes(gateway, *shlex.split(told), cwd=here) as again:
            await again.communicate()

        assert told == f"cp -r 'my src/.' '{machine}:~/new'"
        assert again.returncode == 0
        assert fleet.bytes_uploaded == 3_000_000
        assert [fleet.files[f"~/new/{name}"][0] for name in ("a", "b", "c")] == [
            (here / "my src" / name).read_bytes() for name in ("a", "b", "c")
        ]


class TestProgress:
    async def test_is_a_bar_with_a_rate_on_a_terminal(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        async with person.at_terminal(
            gateway, "cp", str(here / "a.bin"), f"{machine}:a", columns=160
        ) as somebody:
            code = await somebody.ends()

        assert code == 0
        assert b"a.bin" in somebody.seen
        assert b"2.9/2.9 KiB" in somebody.seen

    async def test_says_where_an_interrupted_copy_goes_on(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        (here / "big").write_bytes(b"x" * 4 * 128 * 1024)
        fleet.takes_parts = 2
        arguments = ("cp", str(here / "big"), f"{machine}:big")
        async with person.at_terminal(gateway, *arguments, columns=200) as somebody:
            async with asyncio.timeout(person.WITHIN_S):
                await fleet.is_stalled.wait()
            somebody.types(b"\x03")
            assert await somebody.ends() == 130
            assert b"the same command goes on from here" in somebody.seen
        fleet.takes_parts = None
        async with person.at_terminal(gateway, *arguments, columns=200) as somebody:
            assert await somebody.ends() == 0
            assert b"big: going on at 50 %" in somebody.seen

    async def test_shows_no_name_that_steers_the_terminal(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        fleet.put("/tmp/\x1b]0;x\x07", b"x")
        async with person.at_terminal(
            gateway, "cp", f"{machine}:/tmp/\x1b]0;x\x07", str(here / "y"), columns=160
        ) as somebody:
            assert await somebody.ends() == 0

        assert b"\x1b]0;" not in somebody.seen

    async def test_is_nothing_in_a_pipe(
        self, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str, here: pathlib.Path
    ) -> None:
        async with person.on_pipes(gateway, "cp", str(here / "a.bin"), f"{machine}:a") as process:
            assert await process.communicate() == (b"", b"")

        assert process.returncode == 0


async def test_a_machine_that_is_away_is_told_at_once(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str, here: pathlib.Path
) -> None:
    gateway.troubles["machine.fileStat"].extend([errors.MachineOffline()] * 4)

    refused = await paddock("cp", "a.bin", f"{machine}:x")

    assert (refused.exit_code, "is not connected" in refused.stderr) == (75, True)


async def test_a_file_of_a_folder_that_cannot_be_read_there_leaves_no_part_here(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    fleet: fake_fleet.FakeFleet,
    machine: str,
    here: pathlib.Path,
) -> None:
    fleet.put("~/app/secret", b"x")
    gateway.troubles["machine.fileRead"].append(errors.PermissionDenied())

    copied = await paddock("cp", "-r", f"{machine}:app", "copy")

    assert copied.exit_code != 0
    assert "left out" in copied.stderr
    assert list((here / "copy").iterdir()) == []
