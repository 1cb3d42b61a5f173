"""The sandboxes of this host, looked at without a control plane: which provider works, and what is left over."""

import pathlib
import tempfile
from typing import Self

from paddock.provisioner.providers import bubblewrap, process, runtime


async def best(daemon: pathlib.Path) -> tuple[str, str]:
    """The name of the provider that isolates, if it works here, else of the other, and why not the first.

    Found out by making a sandbox in a folder of its own, so a stack may run at the same time.
    """
    with (
        tempfile.TemporaryDirectory(prefix="paddock-trial-") as scratch,
        Host(pathlib.Path(scratch), daemon) as host,
    ):
        why_not = await host.isolating.available()
        return (host.plain.name, why_not) if why_not else (host.isolating.name, "")


class Host:
    """The providers that run on this host, on one data folder no stack runs on."""

    def __init__(self, data: pathlib.Path, daemon: pathlib.Path) -> None:
        installed = runtime.locate(daemon)
        self.isolating = bubblewrap.Bubblewrap(data, installed)
        self.plain = process.Process(data, installed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.isolating.close()
        self.plain.close()

    async def remove_everything(self) -> int:
        """End every sandbox of the folder; how many there were.

        Raises:
            errors.ProviderFailed: Something in one is still alive.
        """
        count = 0
        for one in (self.isolating, self.plain):
            for found in await one.sandboxes():
                await one.delete(found.sandbox_id)
                count += 1
        return count
