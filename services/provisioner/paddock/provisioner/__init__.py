"""One stage of a machine's life: a sandbox from a provider, and its end.

The provisioner of a host owns that host's sandboxes. Nothing else starts, ends or looks at one.
"""
