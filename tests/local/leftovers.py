"""What still runs: children of this process that a test has to answer for."""

import psutil


def children() -> set[int]:
    """Every process below this one that runs. Another test's fixture may have some, so compare before and after."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found
