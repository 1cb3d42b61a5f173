"""What the keeper is asked for, checked member by member: whoever can open its door may say anything."""

from paddock.daemon import keeper_plan, keeper_protocol, output

_ID_MAX = 128
_DASHES = str.maketrans("_-", "aa")
_TERMINAL_MAX = 1 << 16


class Order:
    """A `start`, checked."""

    def __init__(self, header: keeper_protocol.Header) -> None:
        """Raises: LookupError, TypeError, ValueError: It is none."""
        self.id = text(header["id"])
        if len(self.id) > _ID_MAX or not self.id.translate(_DASHES).isalnum() or not self.id.isascii():
            raise ValueError
        self._header = header
        self._digest = text(header["digest"])
        self.began_at_ms = number(header["beganAtMs"])
        self.limit_bytes = max(output.SEGMENT_BYTES_MIN, number(header["limitBytes"]))
        self.stdin = header["stdin"] is True
        timeout_s = header["timeoutS"]
        self.timeout_s = None if timeout_s is None else seconds(timeout_s)
        pty = header["pty"]
        self.size = None if pty is None else (size(pty, "columns"), size(pty, "rows"))

    def plan(self) -> keeper_plan.Plan:
        header = self._header
        argv, env, groups = header["argv"], header["env"], header.get("groups") or []
        if not (isinstance(argv, list) and isinstance(env, dict) and isinstance(groups, list)):
            raise TypeError
        uid, gid = header.get("uid"), header.get("gid")
        return keeper_plan.Plan(
            argv,
            env,
            text(header["cwd"]),
            uid=None if uid is None else number(uid),
            gid=None if gid is None else number(gid),
            groups=[number(group) for group in groups],
        )

    def accepted(self) -> keeper_protocol.Header:
        """The first line of its record."""
        return {
            "id": self.id,
            "digest": self._digest,
            "command": self._header["argv"],
            "pty": self.size is not None,
            "stdin": self.stdin,
            "beganAtMs": self.began_at_ms,
            "limitBytes": self.limit_bytes,
            "segmentBytes": output.segment_bytes_for(self.limit_bytes),
            "namespace": text(self._header.get("namespace", "")),
            "timeoutS": self.timeout_s,
        }


def text(value: object) -> str:
    """This text. Raises: TypeError: It is none."""
    if isinstance(value, str):
        return value
    raise TypeError


def number(value: object) -> int:
    """This number, which is not negative. Raises: TypeError: It is none."""
    if isinstance(value, int) and value >= 0:
        return value
    raise TypeError


def seconds(value: object) -> float:
    """These seconds, more than none. Raises: TypeError: They are not."""
    if isinstance(value, (int, float)) and value > 0:
        return float(value)
    raise TypeError


def size(members: object, name: str) -> int:
    """The columns or rows of a terminal. Raises: LookupError, TypeError: They are none."""
    if isinstance(members, dict) and 0 < number(members[name]) < _TERMINAL_MAX:
        return number(members[name])
    raise TypeError
