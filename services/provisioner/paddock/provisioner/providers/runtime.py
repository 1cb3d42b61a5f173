"""The daemon's installation on this host, and what it needs to run where nothing else is.

A runtime is a virtual environment with `paddock.daemon` really installed in it (`uv sync --no-editable`), and the Python it
was made from. Sandboxes see both at the same paths, read-only.
"""

import dataclasses
import pathlib
import sys

from paddock.contracts import errors, ids

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM = pathlib.Path("/usr")
_LINKS_MAX = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """One installation: every folder it is spread over, and symbolic links that lead from one to another."""

    venv: pathlib.Path
    python: pathlib.Path
    roots: tuple[pathlib.Path, ...]
    links: tuple[pathlib.Path, ...]
    is_editable: bool

    @property
    def search_path(self) -> str:
        """PATH of a machine. Ours come last: `python` is the machine's own where it has one, `paddockd` is always found."""
        return f"{SYSTEM_PATH}:{self.venv / 'bin'}"

    def supervise(self, sandbox: ids.SandboxId) -> list[str]:
        """The command that runs one sandbox. -I: nothing in HOME or the environment can put code into it."""
        return [str(self.python), *supervise_arguments(sandbox)]


def supervise_arguments(sandbox: ids.SandboxId) -> list[str]:
    """Its end names the sandbox, so that a supervisor nobody noted is found in the process list."""
    return ["-I", "-m", "paddock.daemon", "supervise", "--sandbox", sandbox]


def locate(venv: pathlib.Path | None) -> Runtime:
    """The runtime in `venv`, or the one we run in ourselves.

    Raises:
        errors.ProviderFailed: There is no daemon in it.
    """
    folder = (venv or pathlib.Path(sys.prefix)).absolute()
    python = folder / "bin" / "python"
    if not python.exists():
        raise errors.ProviderFailed(
            f"cannot use {folder} as the daemon's runtime: there is no bin/python in it"
        )
    packages = next(folder.glob("lib/python3*/site-packages"), None)
    if packages is None:
        raise errors.ProviderFailed(
            f"cannot use {folder} as the daemon's runtime: there are no packages in it"
        )
    is_installed = (packages / "paddock" / "daemon" / "__init__.py").exists()
    if not is_installed and venv is not None:
        raise errors.ProviderFailed(
            f"cannot use {folder} as the daemon's runtime: paddock-daemon is not in it"
        )
    roots, links = _spread(folder, python)
    return Runtime(folder, python, roots, links, is_editable=not is_installed)


def _spread(
    venv: pathlib.Path, python: pathlib.Path
) -> tuple[tuple[pathlib.Path, ...], tuple[pathlib.Path, ...]]:
    """The venv and each installation its `python` goes through, and the links in between that are in none of them.

    Only a folder with a standard library in it counts as an installation: the folder above `~/.local/bin` is someone's.
    """
    roots, links = [venv], []
    hop = python
    for _ in range(_LINKS_MAX):
        if not hop.is_symlink():
            break
        hop = (hop.parent / hop.readlink()).absolute()
        prefixes = (hop.parent.parent, hop.resolve().parent.parent)
        roots += [
            prefix for prefix in prefixes if _is_installation(prefix) and not prefix.is_relative_to(_SYSTEM)
        ]
        links.append(hop)
    roots = list(dict.fromkeys(roots))
    roots = [
        root for root in roots if not any(root != other and root.is_relative_to(other) for other in roots)
    ]
    covered = (_SYSTEM, *roots)
    loose = (
        link for link in links if link.is_symlink() and not any(link.is_relative_to(top) for top in covered)
    )
    return tuple(roots), tuple(loose)


def _is_installation(prefix: pathlib.Path) -> bool:
    return prefix != prefix.parent and any(prefix.glob("lib*/python3*/os.py"))
