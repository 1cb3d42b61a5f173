"""`paddock up` where the member that brings it is not installed: says so."""

import typer

from paddock.client.commands import failures

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("up", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def up() -> None:
    """Start everything on this machine; needs the package paddock-local."""
    failures.say(
        "cannot start anything here: the package paddock-local is not installed; "
        "install it with `pip install 'paddock-client[local]'`, or name a gateway with --url"
    )
    raise typer.Exit(failures.MISSING)
