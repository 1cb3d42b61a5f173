"""One module a kind of probe; each has `ask`, which returns when the machine answered well and raises when not."""
