"""How results look to people: tables and cards.

What comes from machines and their owners is shown as plain text: no markup, nothing that steers a terminal.
"""

import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import rich.console
import rich.table
import rich.text

from paddock.client import watch
from paddock.client.commands import failures
from paddock.contracts import phases
from paddock.contracts.api import env, executions, files, machines, projects, repositories, tokens

STYLES: Final = {
    phases.Phase.ACTIVE: "green",
    phases.Phase.FAILED: "red",
    phases.Phase.DELETING: "dim",
    phases.Phase.DELETED: "dim",
}
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
SHORT_ID: Final = 16
"""Of a command: with these ids a line of `paddock ps` fits in 80 columns."""
_KINDS: Final = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


def duration(took_ms: int | None) -> str:
    """`412 ms`, `1.20 s`, `2 min 03 s`, `5 h 04 min`; empty when it is not known."""
    if took_ms is None:
        return ""
    if took_ms < 1000:  # noqa: PLR2004 - a second
        return f"{took_ms} ms"
    if took_ms < _MINUTE_MS:
        return f"{took_ms / 1000:.2f} s"
    if took_ms < _HOUR_MS:
        return f"{took_ms // _MINUTE_MS} min {took_ms % _MINUTE_MS // 1000:02} s"
    return f"{took_ms // _HOUR_MS} h {took_ms % _HOUR_MS // _MINUTE_MS:02} min"


def size(count_bytes: int) -> str:
    """`0 B`, `1.5 KiB`, `12 MiB`."""
    number, unit = float(count_bytes), 0
    while number >= 1023.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - what would round up to 1024
        number, unit = number / 1024, unit + 1
    digits = 1 if unit and number < 9.95 else 0  # noqa: PLR2004 - what would round up to 10
    return f"{number:.{digits}f} {_UNITS[unit]}"


def moment(text: str | None) -> str:
    """`2026-01-31 12:00:00Z` of an RFC 3339 moment."""
    return "" if text is None else f"{text[:10]} {text[11:19]}Z"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | rich.text.Text]], *, whole: Sequence[str] = ()
) -> rich.console.RenderableType:
    """Aligned columns without lines; the first and those of `whole` are never folded."""
    drawn = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number == 0 or column in whole, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    return drawn if drawn.row_count else rich.text.Text("none", style="dim")


def card(facts: Iterable[tuple[str, str | rich.text.Text]]) -> rich.console.RenderableType:
    """One thing: a name and a value on each line; empty values are left out."""
    drawn = rich.table.Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(overflow="fold")
    for name, value in facts:
        if value:
            drawn.add_row(name, _cell(value))
    return drawn


def phase_text(phase: phases.Phase) -> rich.text.Text:
    return rich.text.Text(phase.value, style=STYLES.get(phase, "yellow"))


def project(one: projects.Project) -> rich.console.RenderableType:
    steps = [shlex.join(step.command) for step in one.blueprint.setup_steps]
    probes = [
        shlex.join(probe.command) if isinstance(probe, projects.ExecProbe) else "ping"
        for probe in one.blueprint.probes
    ]
    return card(
        [
            ("id", one.id),
            ("name", one.name),
            ("provider", one.provider),
            ("image", one.image),
            *(("setup step", step) for step in steps),
            *(("probe", probe) for probe in probes),
            ("created", moment(one.created_at)),
        ]
    )


def project_list(page: projects.ProjectPage) -> rich.console.RenderableType:
    return table(
        ("ID", "NAME", "PROVIDER", "STEPS", "CREATED"),
        (
            (one.id, one.name, one.provider, str(len(one.blueprint.setup_steps)), moment(one.created_at))
            for one in page.projects
        ),
    )


def machine(one: machines.Machine) -> rich.console.RenderableType:
    # Until the first word of a new sandbox, `last_seen_at` is of the one before it.
    is_seen = one.last_seen_at and one.connection is not phases.Connection.NEVER
    seen = f", last seen {moment(one.last_seen_at)}" if is_seen else ""
    health = f"{one.health.value}: {one.health_reason}" if one.health_reason else one.health.value
    return card(
        [
            ("id", one.id),
            ("name", one.name),
            ("project", one.project_id),
            ("phase", phase_text(one.phase)),
            ("since", moment(one.phase_since)),
            ("reason", reason(one.reason)),
            ("connection", f"{one.connection.value}{seen}"),
            ("health", health),
            ("env", _env_versions(one.env)),
            ("provider", one.provider),
            ("sandbox", one.sandbox_id or ""),
            ("labels", " ".join(f"{name}={value}" for name, value in sorted(one.labels.items()))),
            ("created", moment(one.created_at)),
            ("active at", moment(one.active_at)),
            ("fails at", moment(one.limit_at)),
        ]
    )


def machine_list(page: machines.MachinePage) -> rich.console.RenderableType:
    return table(
        ("ID", "NAME", "PHASE", "SINCE", "CONNECTION", "HEALTH", "ENV", "PROJECT"),
        (
            (
                one.id,
                one.name,
                phase_text(one.phase),
                moment(one.phase_since),
                one.connection.value,
                one.health.value,
                _env_versions(one.env),
                one.project_id,
            )
            for one in page.machines
        ),
    )


def reason(why: machines.Reason | None) -> str:
    return "" if why is None else f"{why.stage}: {why.message}"


def history(one: machines.History) -> rich.console.RenderableType:
    """The phases with the time spent in each, then the stage runs with the time they waited and took."""
    spent = [move.after_ms for move in one.moves[1:]] + [None]
    moves = table(
        ("PHASE", "TOOK", "ENTERED", "GEN", "BY", "REASON"),
        (
            (
                phase_text(move.phase),
                duration(took_ms),
                moment(move.at),
                str(move.generation),
                move.actor,
                reason(move.reason),
            )
            for move, took_ms in zip(one.moves, spent, strict=False)
        ),
    )
    runs = table(
        ("STAGE", "TOOK", "STARTED", "GEN", "RUN", "OUTCOME", "BY", "ERROR"),
        (
            (
                run.stage.value,
                duration(run.took_ms),
                moment(run.started_at),
                str(run.generation),
                str(run.run),
                run.outcome or "unfinished",
                run.owner,
                run.error,
            )
            for run in one.runs
        ),
    )
    return rich.console.Group(moves, "", runs)


def variables(found: env.EnvVariables) -> rich.console.RenderableType:
    return table(
        ("NAME", "SCOPE", "VERSION", "SET", "BY"),
        (
            (one.name, one.scope.value, str(one.version), moment(one.updated_at), one.updated_by)
            for one in found.variables
        ),
    )


def variables_changed(change: env.EnvChanged) -> rich.console.RenderableType:
    what = ", ".join(change.names) if change.names else "nothing"
    return rich.text.Text(failures.printable(f"changed: {what}; machines that are told: {change.machines}"))


def repository(one: repositories.Repository) -> rich.console.RenderableType:
    return repository_list(repositories.Repositories(repositories=[one]))


def repository_list(found: repositories.Repositories) -> rich.console.RenderableType:
    return table(
        ("ID", "URL", "BRANCH", "PATH", "SECRET", "ADDED"),
        (
            (
                one.id,
                one.url,
                one.branch or "",
                one.path,
                "yes" if one.has_secret else "",
                moment(one.created_at),
            )
            for one in found.repositories
        ),
    )


def token_list(found: tokens.Tokens) -> rich.console.RenderableType:
    return table(
        ("ID", "NAME", "CREATED", "BY", "EXPIRES", "REVOKED"),
        (
            (
                one.id,
                one.name,
                moment(one.created_at),
                one.created_by,
                moment(one.expires_at) or "never",
                moment(one.revoked_at),
            )
            for one in found.tokens
        ),
    )


def execution_list(
    found: executions.Executions,
    now_ms: int | None = None,
    titles: Mapping[tuple[str, ...], str] | None = None,
) -> rich.console.RenderableType:
    """A command a line, shortened where it is longer, or as `titles` calls it.

    What runs has taken the time until `now_ms`, where it is known.
    """
    known = titles or {}
    has_short_ids = all(len(one.id) <= SHORT_ID for one in found.executions)
    return table(
        ("ID", "STATE", "EXIT", "STARTED", "TOOK", "OUTPUT", "COMMAND"),
        (
            (
                one.id,
                rich.text.Text(_state(one), style="yellow" if one.state == "running" else ""),
                ending(one),
                moment(one.began_at),
                duration(took_ms(one, now_ms)),
                size(one.stdout_bytes + one.stderr_bytes),
                _one_line(known.get(tuple(one.command)) or shlex.join(one.command)),
            )
            for one in found.executions
        ),
        whole=("STATE", "STARTED", "TOOK") if has_short_ids else ("STATE", "STARTED"),
    )


def ending(one: executions.Execution) -> str:
    """How a command ended in a word: its exit code, a signal, `timed out` or `lost`; empty while it runs."""
    if one.timed_out:
        return "timed out"
    if one.lost:
        return "lost"
    return one.signal or ("" if one.exit_code is None else str(one.exit_code))


def _state(one: executions.Execution) -> str:
    return "stalled" if one.state == "running" and one.stalled else one.state


def took_ms(one: executions.Execution, now_ms: int | None = None) -> int | None:
    """How long a command ran, or has run until `now_ms`; None when that is not known."""
    ended_ms = watch.moment_ms(one.ended_at) if one.ended_at else now_ms
    # The clocks of a machine and of the gateway may differ.
    return None if ended_ms is None else max(ended_ms - watch.moment_ms(one.began_at), 0)


def file_info(one: files.FileInfo) -> rich.console.RenderableType:
    return card(
        [
            ("path", one.path),
            ("kind", one.kind),
            ("target", one.target),
            ("size", f"{one.size} bytes"),
            ("mode", f"{one.mode:04o} {mode(one)}"),
            ("owner", ":".join(filter(None, (one.user, one.group)))),
            ("modified", moment(one.modified_at)),
            ("sha256", one.sha256),
            ("version", one.version),
        ]
    )


def file_list(entries: Iterable[files.FileInfo], *, by_path: bool = False) -> rich.console.RenderableType:
    """As `ls -l` has it, with the whole path of each where they are of several folders."""
    return table(
        ("MODE", "OWNER", "SIZE", "MODIFIED", "PATH" if by_path else "NAME"),
        (
            (
                mode(one),
                ":".join(filter(None, (one.user, one.group))),
                str(one.size) if one.kind == "file" else "",
                moment(one.modified_at),
                (one.path if by_path else one.name) + _mark(one),
            )
            for one in entries
        ),
    )


def mode(one: files.FileInfo) -> str:
    """`drwxr-xr-x`."""
    return stat.filemode(_KINDS.get(one.kind, 0) | one.mode)


def _mark(one: files.FileInfo) -> str:
    match one.kind:
        case "directory":
            return "/"
        case "symlink":
            return f" -> {one.target}"
        case _:
            return ""


def _env_versions(versions: machines.EnvVersions) -> str:
    if versions.applied == versions.desired:
        return str(versions.applied)
    return f"{versions.applied} of {versions.desired}"


def _cell(value: str | rich.text.Text) -> rich.text.Text:
    return value if isinstance(value, rich.text.Text) else rich.text.Text(failures.printable(value))


def _one_line(text: str) -> rich.text.Text:
    """What is too long for its column ends in an ellipsis."""
    return rich.text.Text(" ".join(failures.printable(text).split()), no_wrap=True, overflow="ellipsis")
