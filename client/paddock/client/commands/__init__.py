"""The `paddock` command: one module a noun, loaded when it is used. Other members add commands as entry points."""
