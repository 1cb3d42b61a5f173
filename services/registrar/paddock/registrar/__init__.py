"""The machines' door: daemons report here, and what they are told they may rely on.

It also runs what only one process may do: the outbox relay and the connection watcher, each under a lease.
"""
