"""One stage: pushes a machine's environment file, repositories and setup steps, with the two tools its daemon has."""
