"""Which port a request is for, by every spelling of a host and by path."""

import pytest

from paddock.contracts import errors
from paddock.gateway import port_address

ADDRESSES = port_address.Addresses("localhost")


@pytest.mark.parametrize(
    "host",
    [
        "3000--m1.localhost",
        "3000--m1.localhost:7480",
        "3000--m1.localhost:",
        "3000--M1.LOCALHOST:7480",
        "3000--m1.localhost.",
        "3000--m1.localhost.:7480",
    ],
)
def test_every_spelling_of_a_host_names_the_same_port(host: str) -> None:
    address = ADDRESSES.of(host, "/x?y")

    assert address == port_address.PortAddress("m1", 3000, "/x?y")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:7480",
        "127.0.0.1:7480",
        "[::1]:7480",
        "m1.localhost",
        "a.3000--m1.localhost",
        "3000--m1.localhost.example.com",
        "3000--m1localhost",
        "3000--m1.example.com",
        "--.example.com",
        "x--y:z:1",
    ],
)
def test_any_other_host_is_for_the_gateway(host: str) -> None:
    assert ADDRESSES.of(host, "/rpc") is None


@pytest.mark.parametrize("port", ["0", "65536", "-1", "03000", "3e3", "x", "", "٣", "99999999999"])
def test_a_port_that_cannot_be_is_refused_in_both_forms(port: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="cannot reach port"):
        ADDRESSES.of(f"{port}--m1.localhost", "/")
    with pytest.raises(errors.InvalidRequest, match="cannot reach port"):
        ADDRESSES.of("localhost", f"/machines/m1/ports/{port}/")


@pytest.mark.parametrize("machine", ["m_1", "m%31", "m-1", "", "a" * 41])
def test_what_is_no_machine_id_is_as_one_nobody_has(machine: str) -> None:
    with pytest.raises(errors.NotFound):
        ADDRESSES.of(f"3000--{machine}.localhost", "/")
    with pytest.raises(errors.NotFound):
        ADDRESSES.of("localhost", f"/machines/{machine}/ports/3000/")


@pytest.mark.parametrize("rest", ["/", "/a/../b", "//x", "/%2F%00?q=%zz&q=#", "/?", "/a?b?c", "/ports/1/"])
def test_what_follows_the_port_in_a_path_is_kept_as_it_is(rest: str) -> None:
    address = ADDRESSES.of("localhost", f"/machines/m1/ports/80{rest}")

    assert address == port_address.PortAddress("m1", 80, rest, "/machines/m1/ports/80")  # type: ignore[arg-type]


@pytest.mark.parametrize(("rest", "target"), [("", "/"), ("?a=b", "/?a=b")])
def test_a_path_that_ends_with_the_port_lacks_a_slash(rest: str, target: str) -> None:
    address = ADDRESSES.of("localhost", f"/machines/m1/ports/80{rest}")

    assert address is not None
    assert (address.lacks_slash, address.target) == (True, target)


@pytest.mark.parametrize(
    "path", ["/", "/machines", "/machines/m1", "/machines/m1/ports", "/machines/m1/port/80/"]
)
def test_any_other_path_is_for_the_gateway(path: str) -> None:
    assert ADDRESSES.of("localhost", path) is None


def test_a_target_that_is_no_path_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="not a path"):
        ADDRESSES.of("3000--m1.localhost", "*")


def test_without_a_domain_there_is_only_the_path_form() -> None:
    addresses = port_address.Addresses("")

    assert addresses.of("3000--m1.localhost", "/") is None
    assert addresses.of("3000--m1.", "/") is None
    assert addresses.host("m1", 3000) == ""
    assert addresses.of("x", "/machines/m1/ports/80/") is not None


def test_a_domain_of_several_labels_names_ports_too() -> None:
    addresses = port_address.Addresses("dev.example.com")

    assert addresses.host("m1", 3000) == "3000--m1.dev.example.com"
    assert addresses.of("3000--m1.dev.example.com", "/") is not None
    assert addresses.of("3000--m1.example.com", "/") is None
