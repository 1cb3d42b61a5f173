"""docs/map.md, written from the sources: one line a module, its own first sentence.

Run `.venv/bin/python -m tests.repo.map` after a module was added, renamed or given another first sentence.
"""

import ast
import pathlib

from tests.repo import tree

MAP = tree.ROOT / "docs/map.md"
HEAD = """# The map

Which file holds what. Each line is the first sentence of the module itself; a test keeps this page and the
sources the same (`.venv/bin/python -m tests.repo.map` writes it).

A machine's way through the house, and the folder to open when a stage goes wrong:

| what happens | where |
|---|---|
| somebody asks for a machine | `services/gateway/` |
| a sandbox is made for it, and its daemon started | `services/provisioner/` |
| the daemon says ready | `daemon/`, answered by `services/registrar/` |
| its environment, repositories and setup steps are pushed | `services/setup_pusher/` |
| it is asked until it answers well, and becomes active | `services/prober/` |

Members depend downwards only: `local` on everything; the services on `store`; `store` and `daemon` on `bus`;
`bus` and `client` on `contracts`. Services never import each other.

Beside the members: `tests/` has one folder a member (`tests/support/` is what they share, `tests/repo/`
checks the repository itself); `docs/` has this map, the [style](style.md), what is
[protected and how](security.md), the [settings](settings.md), the [benchmarks](benchmarks.md) and the
[decisions](decisions/README.md); `deploy/` says how to run the services one by one; `changes/` holds what the next
release will say.
"""


def first_sentence(path: pathlib.Path) -> str:
    text = ast.get_docstring(tree.parsed(path)) or ""
    return " ".join(text.split("\n\n")[0].split())


def lines() -> dict[str, str]:
    """Path to sentence, for every module but the `__init__` files."""
    files = (path for member in tree.members() for path in member.files() if path.name != "__init__.py")
    return {tree.shown(path): first_sentence(path) for path in files}


def text() -> str:
    parts = [HEAD]
    sentences = lines()
    for member in tree.members():
        folder = tree.shown(member.folder)
        prefix = f"{tree.shown(member.package)}/"
        parts.append(f"\n## {folder}\n{member.description} `{prefix}`\n\n")
        own = {path: said for path, said in sentences.items() if path.startswith(prefix)}
        parts += [f"- `{path.removeprefix(prefix)}` {said}\n" for path, said in own.items()]
    return "".join(parts)


if __name__ == "__main__":
    MAP.write_text(text())
