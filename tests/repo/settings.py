"""docs/settings.md, written from the services' own settings: name, default and sentence of each.

Run `.venv/bin/python -m tests.repo.settings` after a setting was added or its sentence changed.
"""

import typing

import pydantic
from pydantic import fields

from paddock.gateway import settings as gateway
from paddock.prober import settings as prober
from paddock.provisioner import settings as provisioner
from paddock.registrar import settings as registrar
from paddock.setup_pusher import settings as setup_pusher
from paddock.store import settings as shared
from tests.repo import tree

PAGE = tree.ROOT / "docs/settings.md"
SERVICES: tuple[type[shared.ServiceSettings], ...] = (
    gateway.Settings,
    registrar.Settings,
    provisioner.Settings,
    setup_pusher.Settings,
    prober.Settings,
)
HEAD = """# Settings

Each service reads its settings once, at its start, from `PADDOCK_…` variables. A variable that begins with a service's
name and is no setting of it stops the start, and so does a missing or a wrong one; the message names it and shows no
value. `paddock up` fills them in by itself. A test keeps this page and the sources the same
(`.venv/bin/python -m tests.repo.settings` writes it).
"""


def text() -> str:
    common = shared.ServiceSettings.model_fields
    parts = [HEAD, "\n## Every service\n\n", *_table(common)]
    for service in SERVICES:
        own = {name: field for name, field in service.model_fields.items() if name not in common}
        parts += [f"\n## {service.service}\n\n", *(_table(own) if own else ["None of its own.\n"])]
    return "".join(parts)


def _table(known: typing.Mapping[str, fields.FieldInfo]) -> list[str]:
    rows = ["| variable | default | |\n", "|---|---|---|\n"]
    for name, field in known.items():
        assert field.description, f"{name} has no sentence"
        rows.append(f"| `{shared.PREFIX}{name.upper()}` | {_default(field)} | {field.description} |\n")
    return rows


def _default(field: fields.FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "found out"
    value = field.default
    if isinstance(value, pydantic.SecretStr) or value in {None, ""} or str(value) in {"", ".", "()"}:
        return ""
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(text())
