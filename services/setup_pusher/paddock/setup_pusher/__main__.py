"""`python -m paddock.setup_pusher`: run one setup pusher until it is told to stop."""

from paddock.setup_pusher import manager, settings
from paddock.store import process


def main() -> None:
    process.main(settings.Settings, manager.serve)


if __name__ == "__main__":
    main()
