"""How it is said: NATS, JSON-RPC, event wake-ups, credentials and lifecycle.

Every process of Paddock speaks through this member and the daemon stays small because of it: contracts,
msgspec, nats-py and nkeys, nothing else.
"""
