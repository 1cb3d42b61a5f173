import io

import pytest
import rich.console

from paddock.client.commands import desk, failures, views


@pytest.mark.parametrize(
    ("took_ms", "text"),
    [
        (None, ""),
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.00 s"),
        (59_999, "60.00 s"),
        (123_000, "2 min 03 s"),
        (18_240_000, "5 h 04 min"),
    ],
)
def test_a_duration_reads_as_people_say_it(took_ms: int | None, text: str) -> None:
    assert views.duration(took_ms) == text


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10_188, "9.9 KiB"),
        (10_190, "10 KiB"),
        (1_048_575, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_a_size_reads_as_people_say_it(count_bytes: int, text: str) -> None:
    assert views.size(count_bytes) == text


def test_what_a_machine_says_is_neither_markup_nor_a_steering_sequence() -> None:
    console = rich.console.Console(file=io.StringIO(), width=desk.WIDE)

    console.print(views.table(("A",), [("[red]x[/red] \x1b[31m :smile:",)]))

    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[1].rstrip() == r"[red]x[/red] \x1b[31m :smile:"


def test_many_lines_become_one_sentence() -> None:
    assert failures.printable("one\ntwo\tthree\x00") == r"one two three\x00"
