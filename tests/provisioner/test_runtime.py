"""Finding the daemon's installation, however its Python is linked."""

import pathlib
import sys

import pytest

from paddock.contracts import errors
from paddock.provisioner.providers import runtime
from tests.provisioner import stub


def test_a_runtime_is_its_venv_and_the_python_it_was_made_from(daemon: runtime.Runtime) -> None:
    assert daemon.roots == (daemon.venv, pathlib.Path(sys.base_prefix))
    assert not daemon.is_editable


def test_the_folder_above_a_link_to_python_is_not_taken_for_an_installation(tmp_path: pathlib.Path) -> None:
    """~/.local/bin/python would otherwise show ~/.local to every machine."""
    venv = stub.install(tmp_path / "venv")
    shim = tmp_path / "someone/.local/bin/python3"
    shim.parent.mkdir(parents=True)
    shim.symlink_to((venv / "bin/python").readlink())
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to(shim)

    found = runtime.locate(venv)

    assert found.roots == (venv, pathlib.Path(sys.base_prefix))
    assert found.links == (shim,)


def test_a_venv_without_the_daemon_is_refused(tmp_path: pathlib.Path) -> None:
    venv = stub.install(tmp_path / "venv")
    (venv / "lib").rename(tmp_path / "away")

    with pytest.raises(errors.ProviderFailed, match="there are no packages in it"):
        runtime.locate(venv)


def test_our_own_environment_is_the_runtime_when_none_is_given() -> None:
    assert runtime.locate(None).venv == pathlib.Path(sys.prefix)


def test_the_machines_own_python_comes_before_the_daemons(daemon: runtime.Runtime) -> None:
    assert daemon.search_path.split(":")[-1] == str(daemon.venv / "bin")
