"""The typed Python client of the gateway, and the `paddock` command: contracts and HTTP, no bus and no database."""
