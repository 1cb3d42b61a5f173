"""What a crontab line means, and what is said of one that means nothing."""

import datetime

import pytest

from paddock.daemon import crontab


def at(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).astimezone().timestamp() * 1000)


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("* * * * *", "2025-03-05T10:31:00"),
        ("*/15 * * * *", "2025-03-05T10:45:00"),
        ("0 9-17 * * MON-FRI", "2025-03-05T11:00:00"),
        ("@hourly", "2025-03-05T11:00:00"),
        ("@daily", "2025-03-06T00:00:00"),
        ("@weekly", "2025-03-09T00:00:00"),
        ("@yearly", "2026-01-01T00:00:00"),
    ],
)
def test_a_job_is_due_when_cron_would_run_it(expression: str, due: str) -> None:
    (job,) = crontab.parse(f"{expression} echo  'two  spaces' > f\n").jobs

    assert job.next_after(at("2025-03-05T10:30:20")) == at(due)
    assert job.command == "echo  'two  spaces' > f"


def test_variables_hold_for_the_jobs_below_them() -> None:
    text = '# said aside\n@daily one\nA=1\nB = "two words"\n@daily two\nA=3\n@daily three\n\n'
    jobs = crontab.parse(text).jobs

    assert [dict(job.variables) for job in jobs] == [
        {},
        {"A": "1", "B": "two words"},
        {"A": "3", "B": "two words"},
    ]


@pytest.mark.parametrize(
    "line",
    [
        "61 * * * * x",
        "* * * *",
        "* * * * *",
        "@reboot x",
        "@hourly",
        "nonsense",
        "0 0 30 2 * x",
        "* * * * MOON x",
    ],
)
def test_a_line_that_makes_no_sense_is_reported_and_the_others_count(line: str) -> None:
    table = crontab.parse(f"@daily before\n{line}\n@daily after\n")

    assert [job.command for job in table.jobs] == ["before", "after"]
    assert list(table.bad_lines) == [2]
    assert table.bad_lines[2]
