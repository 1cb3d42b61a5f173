"""`python -m paddock.gateway`: run one gateway until it is told to stop."""

from paddock.gateway import manager, settings
from paddock.store import process


def main() -> None:
    process.main(settings.Settings, manager.serve)


if __name__ == "__main__":
    main()
