import pytest

from paddock.client.commands import places
from paddock.contracts import errors


@pytest.mark.parametrize(
    ("typed", "machine", "path", "name"),
    [
        ("m1:", "m1", "~", ""),
        ("m1:~", "m1", "~", ""),
        ("m1:x", "m1", "~/x", "x"),
        ("m1:x/", "m1", "~/x", "x"),
        ("m1:x/.", "m1", "~/x", ""),
        ("m1:/", "m1", "/", ""),
        ("m1:/a//b/./c", "m1", "/a/b/c", "c"),
        ("m1:../x", "m1", "~/../x", "x"),
        ("m1:~other/x", "m1", "~/~other/x", "x"),
        ("m1:a:b", "m1", "~/a:b", "a:b"),
        ("./a:b", "", "./a:b", "a:b"),
        ("/a:b", "", "/a:b", "a:b"),
        ("a", "", "a", "a"),
        ("a/", "", "a/", "a"),
        (".", "", ".", ""),
        ("..", "", "..", ""),
        ("-", "", "-", "-"),
    ],
)
def test_a_place_is_read_as_it_is_typed(typed: str, machine: str, path: str, name: str) -> None:
    place = places.read(typed)

    assert (place.machine, place.path, place.name) == (machine, path, name)


def test_a_dash_is_a_stream_here_only() -> None:
    assert [places.read(text).is_stream for text in ("-", "m1:-", "./-")] == [True, False, False]


def test_an_empty_place_is_refused() -> None:
    with pytest.raises(errors.InvalidParams, match="a path is empty"):
        places.read("")
