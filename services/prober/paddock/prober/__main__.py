"""`python -m paddock.prober`: run one prober until it is told to stop."""

from paddock.prober import manager, settings
from paddock.store import process


def main() -> None:
    process.main(settings.Settings, manager.serve)


if __name__ == "__main__":
    main()
