"""`python -m paddock.registrar`: run the registrar alone."""

from paddock.registrar import manager, settings
from paddock.store import process


def main() -> None:
    process.main(settings.Settings, manager.serve)


if __name__ == "__main__":
    main()
