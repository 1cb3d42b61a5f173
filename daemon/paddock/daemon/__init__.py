"""The daemon in every machine: it listens, says ready, and does what it is told. It pulls nothing."""
