"""The providers of this host: which may make sandboxes, and which must still be able to end theirs."""

import contextlib
from collections.abc import AsyncIterator, Iterator

from paddock.bus import clock, logs
from paddock.contracts import errors, ids
from paddock.provisioner import settings
from paddock.provisioner.providers import bubblewrap, process, provider, runtime

log = logs.get(__name__)


class Catalogue:
    """Every provider by name. One that is not offered makes nothing new, but looks after what it once made."""

    def __init__(self, providers: list[provider.Provider], *, offered: frozenset[str]) -> None:
        self._providers = {one.name: one for one in providers}
        self._offered = offered

    def __iter__(self) -> Iterator[provider.Provider]:
        return iter(self._providers.values())

    def offered(self, name: str) -> provider.Provider:
        """The provider that makes sandboxes for a machine.

        Raises:
            errors.UnknownProvider: There is none of this name, or it is not allowed here.
        """
        found = self._providers.get(name)
        if found is None:
            raise errors.UnknownProvider(f"cannot make a sandbox: there is no provider {name!r} here")
        if name not in self._offered:
            raise errors.UnknownProvider(
                f"cannot make a sandbox: the provider {name!r} is not allowed here; it gives no isolation and has to be"
                " asked for (--unsafe-process-provider)"
            )
        return found

    def find(self, name: str) -> provider.Provider | None:
        """The provider that made a machine's sandboxes, or None when it cannot have made any."""
        return self._providers.get(name)

    async def holding(self, sandbox: ids.SandboxId) -> provider.Provider:
        """The provider that has this sandbox; any one when none has, for it will say so."""
        for one in self:
            if await one.has(sandbox):
                return one
        return next(iter(self))


@contextlib.asynccontextmanager
async def opened(given: settings.Settings, wall: clock.Clock) -> AsyncIterator[Catalogue]:
    """The providers these settings describe.

    Raises:
        errors.ProviderFailed: There is no daemon where the settings say it is.
    """
    daemon = runtime.locate(given.provisioner_runtime_dir)
    with contextlib.ExitStack() as stack:
        bwrap = bubblewrap.Bubblewrap(
            given.provisioner_data,
            daemon,
            nice=given.provisioner_nice,
            boots_at_once=given.provisioner_boots_at_once,
            readonly=given.provisioner_readonly_paths,
            wall=wall,
        )
        stack.callback(bwrap.close)
        plain = process.Process(
            given.provisioner_data,
            daemon,
            nice=given.provisioner_nice,
            boots_at_once=given.provisioner_boots_at_once,
            wall=wall,
        )
        stack.callback(plain.close)
        allowed = {bwrap.name, plain.name} if given.provisioner_unsafe_process_provider else {bwrap.name}
        # Tried out now: the first machine should not wait for it.
        if (reason := await bwrap.available()) is not None:
            log.warning("provider_unavailable", provider=bwrap.name, reason=reason)
        yield Catalogue([bwrap, plain], offered=frozenset(allowed))
