"""What this gateway answers: every method of the contract, and what carries it out."""

import itertools

from paddock.contracts.api import methods
from paddock.gateway import (
    auth,
    env,
    events,
    executions,
    files,
    jsonrpc,
    last_seen,
    machine_cache,
    machine_calls,
    machine_link,
    machines,
    port_urls,
    ports,
    projects,
    repositories,
    settings,
    stream_calls,
    system,
    tokens,
    waiting,
)
from paddock.store import process


def table(
    context: process.Context,
    given: settings.Settings,
    *,
    authenticator: auth.Authenticator,
    cache: machine_cache.MachineCache,
    waits: waiting.Waiting,
    link: machine_link.MachineLink,
    commands: executions.Executions,
    urls: port_urls.PortUrls,
) -> list[jsonrpc.AnyRoute]:
    """A route for each method of `contracts.api.methods`.

    Raises:
        LookupError: One has no route, or a route no method.
    """
    store, seen = context.store, last_seen.LastSeen(context.presence)
    nouns = (
        system.System(context.clock),
        projects.Projects(store, providers=given.gateway_providers.split(",")),
        machines.Machines(store, waits, cache, seen),
        machine_calls.MachineCalls(store, link, context.caller),
        commands,
        files.Files(link),
        ports.Ports(link),
        urls,
        stream_calls.StreamCalls(),
        env.Env(store),
        repositories.Repositories(store),
        tokens.Tokens(store, authenticator),
        events.Events(),
    )
    routes = list(itertools.chain.from_iterable(noun.routes() for noun in nouns))
    if {route.method for route in routes} != set(methods.ALL):
        raise LookupError("cannot serve: the table of methods and the routes differ")
    return routes
