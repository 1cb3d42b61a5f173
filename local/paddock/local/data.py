"""The data folder: what a stack on one machine keeps between two runs.

Keys, ports and passwords are chosen once and kept, so machines that outlive a stack find their bus again. The
folder is for its owner only (0700, secrets in it 0600) and used by one stack at a time (flock): two
nats-servers on one store do not notice each other.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import secrets
import socket
import tempfile
from collections.abc import Iterator

import msgspec

from paddock.bus import accounts, files, rights
from paddock.contracts import errors
from paddock.store import secrets as store_secrets

SOCKET_PATH_BYTES_MAX = 100
"""Linux takes 107 in an address; a little less is left for redis-server's own temporary names."""
PORT_MIN, PORTS = 10_000, 12_000
"""How many ports to choose from, right below those of outgoing connections."""
SERVICES: tuple[rights.ServiceName, ...] = (
    "gateway",
    "registrar",
    "provisioner",
    "setup_pusher",
    "prober",
    "bootstrap",
    "system",
)


class _Ports(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Chosen once; 0 is not chosen yet."""

    nats: int = 0
    gateway: int = 0


class DataFolder:
    """One data folder, held by `locked`. Paths are where things are kept; methods make them the first time."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path.absolute()
        self.realm_path = self.path / "realm.json"
        self.daemon_key_path = self.path / "daemon.key"
        self.secret_keys_path = self.path / "secret.keys"
        self.redis_password_path = self.path / "redis.password"
        self.admin_token_path = self.path / "admin.token"
        self.gateway_path = self.path / "gateway.json"
        self.database_path = self.path / "paddock.db"
        self.nats_dir = self.path / "nats"
        self.redis_dir = self.path / "redis"
        self.creds_dir = self.path / "creds"
        self.logs_dir = self.path / "logs"
        self._ports_path = self.path / "ports.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be and be its only user inside the block.

        Raises:
            errors.InUse: Another stack runs on it.
            OSError: It cannot be made or is not ours.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).decode().strip()
                raise errors.InUse(
                    f"cannot use the data folder {self.path}: process {holder} uses it; stop that one or take another folder"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            self._make_folders()
            yield
        finally:
            os.close(descriptor)

    def _make_folders(self) -> None:
        self.path.chmod(0o700)
        for folder in (self.nats_dir, self.redis_dir, self.creds_dir, self.logs_dir):
            folder.mkdir(mode=0o700, exist_ok=True)

    def realm(self) -> accounts.Realm:
        """The operator, accounts and keys of this folder's bus."""
        if not self.realm_path.exists():
            accounts.Realm.create().save(self.realm_path)
        return accounts.Realm.load(self.realm_path)

    def ensure_secret_keys(self) -> pathlib.Path:
        """The file with the key ring for secrets at rest; losing it loses every stored secret."""
        if not self.secret_keys_path.exists():
            files.write_private(self.secret_keys_path, f"{store_secrets.new_key()}\n")
        return self.secret_keys_path

    def secret_box(self) -> store_secrets.SecretBox:
        return store_secrets.SecretBox(store_secrets.parse_ring(self.ensure_secret_keys().read_text()))

    def ensure_daemon_key(self, realm: accounts.Realm) -> pathlib.Path:
        """The file with the key that signs daemons' credentials; the registrar's alone."""
        if not self.daemon_key_path.exists():
            files.write_private(self.daemon_key_path, f"{realm.sign_daemon.seed}\n")
        return self.daemon_key_path

    def database_url(self) -> str:
        """The folder's own database; its file is made here so that it is its owner's from the first byte."""
        os.close(os.open(self.database_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return f"sqlite:///{self.database_path}"

    def redis_password(self) -> str:
        if not self.redis_password_path.exists():
            files.write_private(self.redis_password_path, f"{secrets.token_hex(32)}\n")
        return self.redis_password_path.read_text().strip()

    def redis_socket(self) -> pathlib.Path:
        """Where Redis listens: a socket here, out of the sandboxes' sight though they share the host's network."""
        inside = self.redis_dir / "redis.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        # Same folder, same socket, so that a restarted stack is found by services that kept running.
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        folder = pathlib.Path(tempfile.gettempdir(), f"paddock-{os.getuid()}-{digest}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or folder.is_symlink():
            raise errors.InUse(f"cannot use {folder} for the socket of Redis: it belongs to somebody else")
        return folder / "redis.sock"

    def write_creds(self, realm: accounts.Realm) -> None:
        """Give each service its credential for this run."""
        for name in SERVICES:
            files.write_private(self.creds_path(name), realm.service_creds(name))

    def creds_path(self, name: rights.ServiceName) -> pathlib.Path:
        return self.creds_dir / f"{name}.creds"

    def nats_port(self) -> int:
        """The port chosen before; 0 when none was."""
        return self._ports().nats

    def keep_nats_port(self, port: int) -> None:
        ports = self._ports()
        ports.nats = port
        self._write_ports(ports)

    def gateway_port(self, wished: int) -> int:
        """The port chosen before, else `wished` if it is free, else any free one; kept."""
        ports = self._ports()
        if not ports.gateway:
            ports.gateway = free_port(wished)
            self._write_ports(ports)
        return ports.gateway

    def _ports(self) -> _Ports:
        if not self._ports_path.exists():
            return _Ports()
        return msgspec.json.decode(self._ports_path.read_bytes(), type=_Ports)

    def _write_ports(self, ports: _Ports) -> None:
        files.write_private(self._ports_path, msgspec.json.encode(ports))


def free_port(wished: int = 0) -> int:
    """A port nobody has: `wished` if it is one, else any that the kernel gives to no outgoing connection.

    Ports are kept for years and their servers restart; one from the kernel's own range would now and then be some
    connection's at that moment.
    """
    first_given = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(max(PORT_MIN, first_given - PORTS), max(PORT_MIN + PORTS, first_given))
    while True:
        port = wished or secrets.choice(candidates)
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Like the server that will use it: a connection of yesterday in TIME_WAIT is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
        wished = 0
