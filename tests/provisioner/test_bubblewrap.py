"""What a bubblewrap sandbox keeps in and keeps out. Run as root this matters most, and these tests usually are."""

import os

import pytest

from paddock.provisioner.providers import boots, bubblewrap
from tests.provisioner import inside


async def ask(made: bubblewrap.Bubblewrap, script: str) -> str:
    """What a script says from inside a fresh sandbox."""
    home = inside.Inside.of(made)
    home.will_run(script)
    with home.listening() as ear:
        await made.create(inside.spec())
        return await ear.all()


async def test_it_can_run_here(bwrap: bubblewrap.Bubblewrap) -> None:
    assert await bwrap.available() is None


async def test_why_it_cannot_run_is_a_sentence(
    bwrap: bubblewrap.Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "_binaries", lambda: ["/bin/false", "/nowhere/bwrap"])

    reason = await bwrap.available()

    assert reason is not None
    assert "/nowhere/bwrap: " in reason


async def test_it_can_write_home_and_tmp_and_nowhere_else(bwrap: bubblewrap.Bubblewrap) -> None:
    script = (
        'for d in / /usr /usr/bin /etc /dev /run /var /home /proc /proc/sys/kernel "$HOME" /tmp /dev/shm; do\n'
        '  if (: > "$d/probe") 2>/dev/null; then echo "$d"; fi\n'
        "done"
    )

    assert (await ask(bwrap, script)).split() == ["/home/machine", "/tmp", "/dev/shm"]


async def test_mounting_again_does_not_make_the_host_writable(bwrap: bubblewrap.Bubblewrap) -> None:
    said = await ask(
        bwrap,
        "mount -o remount,rw /usr; unshare -Urm mount -o remount,rw /usr\n"
        "unshare -Urm umount /proc/sys; (: > /usr/probe) 2>/dev/null || echo refused",
    )

    assert said.split()[-1] == "refused"
    assert not os.access("/usr/probe", os.F_OK)


async def test_the_hosts_kernel_settings_are_out_of_reach(bwrap: bubblewrap.Bubblewrap) -> None:
    """For root's sandboxes bwrap leaves /proc/sys writable: core_pattern would run a program on the host."""
    said = await ask(
        bwrap,
        "for f in $(find /proc -maxdepth 1 -type f) $(find /proc/sys /proc/irq /proc/bus /proc/fs -type f 2>/dev/null); do\n"
        '  if (: >> "$f") 2>/dev/null; then echo "$f"; fi\n'
        "done; unshare -Urpf --mount-proc sh -c '(: >> /proc/sys/kernel/core_pattern)' 2>/dev/null && echo nested\n"
        "echo end",
    )

    assert said.split() == ["end"]


async def test_it_has_no_capabilities_and_cannot_get_any(bwrap: bubblewrap.Bubblewrap) -> None:
    said = await ask(bwrap, "id -u; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status")

    assert said.split() == [
        "1000",
        "CapPrm:",
        "0" * 16,
        "CapEff:",
        "0" * 16,
        "CapBnd:",
        "0" * 16,
        "NoNewPrivs:",
        "1",
    ]


async def test_it_sees_no_process_of_the_host(bwrap: bubblewrap.Bubblewrap) -> None:
    said = await ask(bwrap, "cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc | grep -c '^[0-9]'; hostname")

    first, count, name = said.splitlines()
    assert first.rstrip().endswith("paddock.daemon supervise --sandbox m1-1")
    assert int(count) < 10
    assert name == "m1-1"


async def test_of_etc_it_sees_only_what_is_public(bwrap: bubblewrap.Bubblewrap) -> None:
    said = await ask(
        bwrap, "ls -d /etc/shadow /etc/ssl/private /root/.ssh /etc/ssh 2>/dev/null; cat /etc/passwd; ls /home"
    )

    assert "shadow" not in said
    assert "private" not in said
    assert "ssh" not in said
    assert "machine:x:1000:1000::/home/machine:/bin/sh" in said
    assert said.splitlines()[-1] == "machine"


async def test_git_names_and_certificates_work_inside(bwrap: bubblewrap.Bubblewrap) -> None:
    said = await ask(
        bwrap,
        "cd && git init -q r && cd r && git status --short --branch; getent hosts localhost | head -1\n"
        "whoami; awk 'BEGIN {print 6*7}'",
    )

    assert "No commits yet" in said
    assert "localhost" in said
    assert said.split()[-2:] == ["machine", "42"]


async def test_it_inherits_no_descriptor_and_no_environment_of_ours(
    bwrap: bubblewrap.Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_SECRET_KEYS", "ours")

    said = await ask(bwrap, "ls /proc/1/fd | tr '\\n' ' '; echo; tr '\\0' '\\n' < /proc/1/environ | sort")

    descriptors, *environment = said.splitlines()
    assert descriptors.split() == ["0", "1", "2", str(boots.BOOTED_FD)]
    assert [line.split("=")[0] for line in environment] == [
        "HOME",
        "LANG",
        "LOGNAME",
        "PADDOCK_BOOTED_FD",
        "PADDOCK_HOME",
        "PATH",
        "PWD",
        "USER",
    ]
