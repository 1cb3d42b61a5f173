"""The page of settings is true."""

from tests.repo import settings


def test_the_page_of_settings_says_what_the_services_read() -> None:
    assert settings.PAGE.read_text() == settings.text(), "write it: .venv/bin/python -m tests.repo.settings"
