"""One stage: asks a machine until it answers well, and activates it."""
