from collections.abc import Callable

import pytest

from paddock.contracts import git

GOOD_URLS = [
    "https://example.com/a/b.git",
    "http://127.0.0.1:8080/x",
    "https://[::1]:3000/x",
    "ssh://git@example.com/a.git",
    "ssh://example.com:2222/a.git",
    "git@example.com:a/b.git",
    "file:///srv/git/a.git",
]
BAD_URLS = [
    "",
    "ext::sh -c touch% x",
    "ext::x",
    "fd::3",
    "--upload-pack=x",
    "-oProxyCommand=x",
    "ssh://-oProxyCommand=x/y",
    "git@-oProxyCommand:x",
    "git@host:-x",
    "git@host::x",
    "https://user:password@example.com/x",
    "https://token@example.com/x",
    "https:///x",
    "https://-x/y",
    "https://exa mple.com/x",
    "https://example.com/\n",
    "https://example.com/\x00",
    "ftp://example.com/x",
    "git://example.com/x",
    "file:x",
    "/srv/x",
    "../x",
    "example.com:x",
    "https://example.com/" + "x" * 2000,
]
GOOD_BRANCHES = ["main", "feature/a-b", "v1.2", "a@b", "ünïcode", "x" * 244]
BAD_BRANCHES = [
    "", "-x", "--force", "/x", "x/", "x.", "@", "HEAD", "a..b", "a b", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b",
    "a@{b", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a\x00", "a\n", "a\x7f", "x" * 245,
]  # fmt: skip
GOOD_PATHS = ["src", "~/src", "work/a b/c", "~/.config/x", "a..b", "ünï"]
BAD_PATHS = [
    "", "~", "~/", "/etc", "/", "..", "../x", "a/../b", "a//b", "a/", ".", "./a", "~user/x", "a/~", "-x", "a/-x",
    ".paddock", "~/.paddock", "~/.paddock/x", ".paddock/x", "a\x00b", "a\nb", "x" * 1001,
]  # fmt: skip
CASES: list[tuple[Callable[[str], str], str, bool]] = [
    *[(git.checked_url, text, True) for text in GOOD_URLS],
    *[(git.checked_url, text, False) for text in BAD_URLS],
    *[(git.checked_branch, text, True) for text in GOOD_BRANCHES],
    *[(git.checked_branch, text, False) for text in BAD_BRANCHES],
    *[(git.checked_path, text, True) for text in GOOD_PATHS],
    *[(git.checked_path, text, False) for text in BAD_PATHS],
]


@pytest.mark.parametrize(("check", "text", "is_good"), CASES)
def test_only_what_git_takes_for_what_it_is_may_pass(
    check: Callable[[str], str], text: str, is_good: bool
) -> None:
    if is_good:
        assert check(text) == text
        return
    with pytest.raises(ValueError, match="must ") as refusal:
        check(text)
    assert len(text) < 12 or text not in str(refusal.value)
