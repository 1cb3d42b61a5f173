"""Tickets: whoever has one reaches one port of one machine, until it expires."""

import pytest
from cryptography import fernet

from paddock.bus import clock
from paddock.gateway import port_tickets
from paddock.store import secrets


class At(clock.Clock):
    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@pytest.fixture
def wall() -> At:
    return At(1_000_000)


@pytest.fixture
def box() -> secrets.SecretBox:
    return secrets.SecretBox([fernet.Fernet.generate_key().decode()])


@pytest.fixture
def tickets(box: secrets.SecretBox, wall: At) -> port_tickets.Tickets:
    return port_tickets.Tickets(box, wall)


def ticket(expires_at_ms: int) -> port_tickets.Ticket:
    return port_tickets.Ticket("m1", 3000, "t1", expires_at_ms)


def test_a_ticket_is_good_until_it_expires(tickets: port_tickets.Tickets, wall: At) -> None:
    made = ticket(wall.ms + 2_500)
    text = tickets.sealed(made)
    found, before = tickets.found(text, "m1", 3000), tickets.left_s(made)
    wall.ms += 2_499
    shortly = tickets.left_s(made)
    wall.ms += 1

    assert (found, before, shortly) == (made, 2.5, 0.001)
    assert tickets.found(text, "m1", 3000) is None


def test_a_ticket_is_for_one_port_of_one_machine(tickets: port_tickets.Tickets, wall: At) -> None:
    text = tickets.sealed(ticket(wall.ms + 1000))

    assert tickets.found(text, "m2", 3000) is None
    assert tickets.found(text, "m1", 3001) is None


def test_a_ticket_altered_anywhere_is_none(tickets: port_tickets.Tickets, wall: At) -> None:
    text = tickets.sealed(ticket(wall.ms + 1000))
    swapped = {True: "B", False: "A"}
    # The last character may hold bits that mean nothing.
    altered = [text[:at] + swapped[text[at] == "A"] + text[at + 1 :] for at in range(0, len(text) - 1, 7)]

    assert [one for one in altered if tickets.found(one, "m1", 3000)] == []


@pytest.mark.parametrize("text", ["", "=", "x", "ä", "%41", "a" * 10_000, "../..", "gAAAAA"])
def test_what_is_no_ticket_is_refused_like_an_old_one(tickets: port_tickets.Tickets, text: str) -> None:
    assert tickets.found(text, "m1", 3000) is None


def test_another_secret_of_the_same_ring_is_no_ticket(
    tickets: port_tickets.Tickets, box: secrets.SecretBox, wall: At
) -> None:
    for secret in ("value of a variable", "[]", f'["m1",3000,"t1",{wall.ms + 1000},"env"]'):
        assert tickets.found(box.seal(secret).decode(), "m1", 3000) is None


def test_a_ticket_of_another_ring_is_none(tickets: port_tickets.Tickets, wall: At) -> None:
    other = port_tickets.Tickets(secrets.SecretBox([fernet.Fernet.generate_key().decode()]), wall)

    assert tickets.found(other.sealed(ticket(wall.ms + 1000)), "m1", 3000) is None


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/a", (None, "/a")),
        ("/a?", (None, "/a?")),
        ("/a?b=%41&c", (None, "/a?b=%41&c")),
        ("/a?paddock-ticket=T", ("T", "/a")),
        ("/a?b=%zz&paddock-ticket=T&&c=+", ("T", "/a?b=%zz&&c=+")),
        ("/a?paddock-ticket=S&x&paddock-ticket=T", ("T", "/a?x")),
        ("/a?xpaddock-ticket=T", (None, "/a?xpaddock-ticket=T")),
        ("/paddock-ticket=T", (None, "/paddock-ticket=T")),
    ],
)
def test_a_ticket_is_taken_out_of_a_query_and_the_rest_is_as_it_was(
    target: str, found: tuple[str | None, str]
) -> None:
    assert port_tickets.in_target(target) == found


def test_a_ticket_put_into_an_address_is_found_there() -> None:
    for target in ("/", "/a?b=c", "/a?"):
        assert port_tickets.in_target(port_tickets.with_ticket(target, "T"))[0] == "T"


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        ("a=b;  c=d", "a=b;  c=d"),
        ("paddock-ticket=T", ""),
        ("a=b; paddock-ticket=T; c=d", "a=b; c=d"),
        ("paddock-ticket = T;a=paddock-ticket=x", "a=paddock-ticket=x"),
        ("paddock-ticket", ""),
    ],
)
def test_tickets_are_taken_out_of_cookies_and_nothing_else(header: str, rest: str) -> None:
    assert port_tickets.without_tickets(header) == rest


def test_every_ticket_among_cookies_is_found() -> None:
    found = port_tickets.in_cookies("paddock-ticket=A; b=c;paddock-ticket=B; xpaddock-ticket=C")

    assert list(found) == ["A", "B"]
