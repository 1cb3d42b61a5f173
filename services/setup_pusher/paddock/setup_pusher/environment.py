"""What a machine's environment is: platform under project under machine, on top of the platform's network settings.

The result does not depend on the order anything was set in. The names every machine must be able to trust, its own id and
its project's, cannot be overridden. Not for writing the file: that is `env`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping

from paddock.contracts import ids
from paddock.setup_pusher import dotenv

PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CA_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE")
"""OpenSSL and Python, requests, Node, git, curl: each looks at its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """How machines reach the world. Empty means that nothing is said about it."""

    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    ca_file: str = ""

    def variables(self) -> dict[str, str]:
        """As variables; only what was given."""
        proxies = dict(zip(PROXY_NAMES, (self.http_proxy, self.https_proxy, self.no_proxy), strict=True))
        authorities = dict.fromkeys(CA_NAMES, self.ca_file)
        return {name: value for name, value in (proxies | authorities).items() if value}


@dataclasses.dataclass(frozen=True)
class Environment:
    """The variables of one machine at one version."""

    variables: Mapping[str, str]

    @functools.cached_property
    def text(self) -> str:
        """The file."""
        return dotenv.render(self.variables)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file's bytes, as the daemon's `tool.readFile` answers it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Environment({', '.join(sorted(self.variables))})"


def build(
    *,
    machine_id: ids.MachineId,
    project_id: ids.ProjectId,
    network: Network,
    platform: Mapping[str, str],
    project: Mapping[str, str],
    machine: Mapping[str, str],
) -> Environment:
    """Merge the scopes of one machine; the narrower wins."""
    merged: dict[str, str] = {}
    # Each scope by itself: a machine's HTTP_PROXY must also beat the http_proxy of a wider scope, which curl reads first.
    for scope in (network.variables(), platform, project, machine):
        merged |= _both_cases(scope)
    identity = {"PADDOCK_MACHINE_ID": str(machine_id), "PADDOCK_PROJECT_ID": str(project_id)}
    return Environment(merged | identity)


def _both_cases(scope: Mapping[str, str]) -> dict[str, str]:
    twins: dict[str, str] = {}
    for upper in PROXY_NAMES:
        lower = upper.lower()
        if upper in scope:
            twins[lower] = scope[upper]
        if lower in scope:
            twins[upper] = scope[lower]
    return twins | dict(scope)
