"""`paddock files`: what is in the folders of a machine, and moving it about. To copy, there is `paddock cp`."""

from typing import Annotated, Literal

import typer

from paddock.client.commands import desk, failures, modes, noun, places, views
from paddock.contracts import files as limits
from paddock.contracts.api import files

app = noun.Noun("Files in a machine: look at them, move, remove and find them.")

Machine = Annotated[str, typer.Argument(help="The machine's id.")]
Path = Annotated[str, typer.Argument(help="In the machine: absolute, or from its home directory.")]
Paths = Annotated[list[str], typer.Argument(help="In the machine: absolute, or from its home directory.")]
Kind = Literal["file", "directory", "symlink", "other"]


@app.verb("ls")
async def ls(
    at: desk.Desk,
    machine: Machine,
    path: Annotated[
        str, typer.Argument(help="A folder in the machine; its home directory unless given.")
    ] = "~",
) -> None:
    """Show what is in a folder, by name.

    As in: paddock files ls m123 /etc
    """
    found = await at.client.machine(machine).files.list(places.in_machine(path))
    at.show(files.FilePage(entries=found), lambda page: views.file_list(page.entries))


@app.verb("stat")
async def stat(
    at: desk.Desk,
    machine: Machine,
    path: Path,
    digest: Annotated[
        bool, typer.Option("--digest", help="Also its sha256, for which all of it is read.")
    ] = False,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="A link itself, not what it points at.")
    ] = False,
) -> None:
    """Show what a path is.

    As in: paddock files stat --digest m123 app.tar
    """
    found = await at.client.machine(machine).files.stat(
        places.in_machine(path), digest=digest, follow=not no_follow
    )
    at.show(found, views.file_info)


@app.verb("mkdir")
async def mkdir(
    at: desk.Desk,
    machine: Machine,
    path: Path,
    parents: Annotated[
        bool, typer.Option("--parents", "-p", help="Also those above; one that exists is no error.")
    ] = False,
    mode: Annotated[str, typer.Option(help="Permission bits, octal.")] = "755",
) -> None:
    """Make a folder.

    As in: paddock files mkdir -p m123 app/data
    """
    made = await at.client.machine(machine).files.mkdir(
        places.in_machine(path), mode=modes.read(mode), parents=parents
    )
    at.show(made, views.file_info)


@app.verb("mv")
async def mv(
    at: desk.Desk,
    machine: Machine,
    path: Path,
    to: Annotated[str, typer.Argument(help="Its new path.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", "-f", help="Replace what is there.")] = False,
) -> None:
    """Rename something.

    As in: paddock files mv m123 app app.old
    """
    moved = await at.client.machine(machine).files.move(
        places.in_machine(path), places.in_machine(to), overwrite=overwrite
    )
    at.show(moved, views.file_info)


@app.verb("rm")
async def rm(
    at: desk.Desk,
    machine: Machine,
    paths: Paths,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders with all that is in them.")
    ] = False,
) -> None:
    """Remove files, links and folders.

    As in: paddock files rm -r m123 app.old
    """
    for path in paths:
        await at.client.machine(machine).files.remove(places.in_machine(path), recursive=recursive)
    at.done(f"removed {' '.join(paths)}")


@app.verb("chmod")
async def chmod(
    at: desk.Desk,
    machine: Machine,
    mode: Annotated[str, typer.Argument(help="Permission bits, octal.")],
    path: Path,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="All that is in a folder, too.")
    ] = False,
) -> None:
    """Change permission bits.

    As in: paddock files chmod m123 755 run.sh
    """
    changed = await at.client.machine(machine).files.chmod(
        places.in_machine(path), modes.read(mode), recursive=recursive
    )
    at.show(changed, views.file_info)


@app.verb("find")
async def find(
    at: desk.Desk,
    machine: Machine,
    path: Annotated[
        str, typer.Argument(help="A folder in the machine; its home directory unless given.")
    ] = "~",
    name: Annotated[str, typer.Option(help="A glob for names.")] = "*",
    kind: Annotated[Kind | None, typer.Option(help="Only these.")] = None,
    depth_max: Annotated[int, typer.Option(min=1, max=1000, help="How many folders down.")] = 100,
    limit: Annotated[int, typer.Option(min=1, max=limits.FIND_MAX, help="How many at most.")] = 1000,
) -> None:
    """Find files by name below a folder.

    As in: paddock files find m123 app --name '*.py'
    """
    found = await at.client.machine(machine).files.find(
        places.in_machine(path), pattern=name, kind=kind, depth_max=depth_max, limit=limit
    )
    at.show(found, lambda page: views.file_list(page.entries, by_path=True))
    if not at.is_json:
        _say_what_is_missing(found)


def _say_what_is_missing(found: files.FilesFound) -> None:
    if not found.is_complete:
        failures.say(f"there is more than these {len(found.entries)}; --limit shows up to {limits.FIND_MAX}")
    if found.unreadable:
        failures.say(f"{found.unreadable} folders could not be read")
