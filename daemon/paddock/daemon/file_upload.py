"""One upload: parts that arrive in order, and at the end a new file in place of the old one, or where there was none.

The record that leads to the part file is on disk before it. What was received is kept whatever is refused, except when it
turns out not to be what was sent. One caller at a time. Blocks: use it in a thread.
"""

import contextlib
import hashlib
import os
import pathlib
import stat
from collections.abc import Sequence

import msgspec

from paddock.bus import files as private_files
from paddock.bus import logs
from paddock.contracts import errors, files
from paddock.daemon import file_changes, file_info, file_part, file_place, file_slices, paths

NEW_MODE = 0o644
COMMITTED_KEPT_S = 3600.0
"""How long it is remembered that an upload is done: for a commit asked for again with another call id."""
Outcome = files.WriteResult | errors.Fault

log = logs.get(__name__)


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept on disk. `inode` (device and number) is of the part that is about to take its place."""

    upload: str
    path: str
    part: str
    inode: tuple[int, int] = (0, 0)
    size: int = 0
    sha256: str = ""
    committed: files.FileInfo | None = None


class Upload:
    """One upload, known by the id its sender chose."""

    def __init__(self, upload: str, folder: pathlib.Path, home: str) -> None:
        """Make one; it reads from disk what is known of it when it is first used.

        Args:
            upload: The id.
            folder: Of the records; made when needed.
            home: What `~` means.
        """
        self._id = upload
        # The id is a caller's and may be long, or differ from another in case only.
        self._file = folder / f"{hashlib.sha256(upload.encode()).hexdigest()[:32]}.json"
        self._home = home
        self._record: Record | None = None
        self._part: file_part.Part | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is under way, as far as was looked."""
        return self._part is not None

    def rest(self) -> None:
        """Hold no file open until it goes on."""
        if self._part is not None:
            self._part.rest()

    def take(self, parts: Sequence[tuple[files.WriteParams, bytes]]) -> list[Outcome]:
        """Take parts in their order; the very first begins the upload. For each, how far we are or why not.

        The faults: `BadOffset` for a gap (`data` says how far we are); `Conflict` when the upload is for another path, or
        done; any other when the path cannot be used or the file system refused: what was received is kept.
        """
        return [self._outcome(params, blob) for params, blob in parts]

    def _outcome(self, params: files.WriteParams, blob: bytes) -> Outcome:
        try:
            path, doing = paths.resolve(params.path, self._home), f"write {params.path}"
            with file_place.refusals(doing):
                try:
                    return self._take(params, path, blob, doing)
                except file_part.LostError:
                    self._give_up()
                    return self._take(params, path, blob, doing)
        except errors.Fault as fault:
            return fault

    def _take(self, params: files.WriteParams, path: str, blob: bytes, doing: str) -> Outcome:
        self._load()
        record, part = self._record, self._part
        if record is not None:
            _check_path(record, path, doing)
            if record.committed is not None:
                # One that arrives again after the commit changes nothing.
                if params.offset + len(blob) > record.size:
                    raise errors.Conflict(f"cannot {doing}: this upload is done, and was shorter")
                return files.WriteResult(received=record.size)
        if params.offset > (0 if part is None else part.received):
            raise file_part.gap(doing, 0 if part is None else part.received)
        if part is None:
            part = self._begin(params, path, doing)
        skip = part.received - params.offset
        if skip < len(blob):
            part.append(memoryview(blob)[skip:])
        return files.WriteResult(received=part.received)

    def _begin(self, params: files.WriteParams, path: str, doing: str) -> file_part.Part:
        if params.path.endswith("/"):
            raise errors.IsADirectory(f"cannot {doing}: it names a directory")
        with file_place.at(path, doing=doing, follow=True, parents=params.parents) as place:
            _check_target(place, doing)
            name = file_part.new_name()
            part = file_part.Part(f"{place.folder_path()}/{name}")
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._save(Record(upload=self._id, path=path, part=part.path))
            try:
                part.create(place, name)
            except OSError:
                self._forget()
                raise
        self._part = part
        return part

    def commit(self, params: files.CommitParams) -> "file_slices.Slices[files.FileInfo]":
        """Put it in place; done before, answer the same.

        Raises:
            errors.NotFound: There is no such upload.
            errors.BadOffset: It is not all there.
            errors.Conflict: It is not what was sent (then it is given up), or not what was expected is in place.
            errors.Fault: The file system refused; what was in place still is, and the upload is kept.
        """
        path, doing = paths.resolve(params.path, self._home), f"write {params.path}"
        with file_place.refusals(doing):
            try:
                return (yield from self._commit(params, path, doing))
            except file_part.LostError:
                self._give_up()
                raise errors.Conflict(
                    f"cannot {doing}: what was received was touched; send it again"
                ) from None

    def _commit(
        self, params: files.CommitParams, path: str, doing: str
    ) -> "file_slices.Slices[files.FileInfo]":
        self._load()
        record, part = self._record, self._part
        if record is None:
            raise errors.NotFound(f"cannot {doing}: there is no such upload")
        _check_path(record, path, doing)
        if record.committed is not None:
            return _same(record, params, record.committed, doing)
        if part is None:
            raise file_part.LostError
        yield from self._verify(part, params, doing)
        with file_place.at(path, doing=doing, follow=True) as place:
            return (yield from self._replace(record, part, params, place, doing))

    def _verify(
        self, part: file_part.Part, params: files.CommitParams, doing: str
    ) -> "file_slices.Slices[None]":
        if part.received < params.size:
            raise file_part.gap(doing, part.received)
        actual = yield from part.digest()
        if part.received > params.size or actual != params.sha256:
            self._give_up()
            raise errors.Conflict(
                f"cannot {doing}: what was received is not what was sent; send it again",
                data={"sha256": actual},
            )

    def _replace(
        self,
        record: Record,
        part: file_part.Part,
        params: files.CommitParams,
        place: file_place.Place,
        doing: str,
    ) -> "file_slices.Slices[files.FileInfo]":
        there = _check_target(place, doing)
        check = yield from file_changes.expect(place, params.expected_sha256, doing)
        record = msgspec.structs.replace(record, inode=part.inode, size=params.size, sha256=params.sha256)
        self._save(record)
        kept = NEW_MODE if there is None else stat.S_IMODE(there.st_mode)
        part.dress(kept if params.mode is None else params.mode, there)
        yield
        part.flush()
        yield
        with file_changes.REPLACING:
            check()
            try:
                found = part.take_place(place, is_new=params.expected_sha256 == files.ABSENT)
            except FileExistsError as error:
                raise errors.Conflict(f"cannot {doing}: something is there by now") from error
        with contextlib.suppress(
            OSError
        ):  # it is in place; and of what is in place nothing may say that it is not
            place.sync()
        return self._finish(record, found)

    def _finish(self, record: Record, found: os.stat_result) -> files.FileInfo:
        done = file_info.Describer().info(record.path, found, sha256=record.sha256)
        self._record = msgspec.structs.replace(record, committed=done)
        try:
            self._save(self._record)
        except OSError as error:
            # After a restart the inode in its place will tell.
            log.warning("upload_record_not_saved", reason=os.strerror(error.errno or 0))
        self.rest()
        self._part = None
        return done

    def discard(self) -> None:
        """Give it up; one that is done stays."""
        self._load()
        if self._part is not None:
            self._give_up()

    def expire(self, now_s: float) -> None:
        """Forget it, with its part file, when nobody went on with it for long; `now_s` is unix time."""
        # Without loading it: of very many, none is to be held open for this.
        record = self._record or read(self._file)
        if record is None:
            return
        last_s = 0.0
        for path in (self._file, pathlib.Path(record.part)):
            with contextlib.suppress(OSError):
                last_s = max(last_s, path.lstat().st_mtime)
        if now_s - last_s > (files.UPLOAD_KEPT_S if record.committed is None else COMMITTED_KEPT_S):
            if record.committed is None:
                self._part = self._part or file_part.Part(record.part)
            self._give_up()

    def _give_up(self) -> None:
        if self._part is not None:
            self._part.remove()
        self._forget()

    def _forget(self) -> None:
        self._record = self._part = None
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _load(self) -> None:
        """Learn from disk what is known, if we do not know it yet."""
        if self._record is not None:
            return
        record = self._record = read(self._file)
        if record is None or record.committed is not None:
            return
        self._part = file_part.Part(record.part, record.inode)
        try:
            self._part.find()
        except file_part.LostError:
            if not self._was_committed(record):
                log.warning("upload_given_up", reason="its part file is gone, or not ours alone")
                self._give_up()

    def _was_committed(self, record: Record) -> bool:
        """Whether the part is gone because it took its place, just before a daemon was killed."""
        with contextlib.suppress(OSError):
            found = pathlib.Path(record.path).stat()
            if (found.st_dev, found.st_ino) == record.inode and found.st_size == record.size:
                self._finish(record, found)
                return True
        return False

    def _save(self, record: Record) -> None:
        private_files.write_private(self._file, msgspec.json.encode(record), outlives_power=False)
        self._record = record


def read(file: pathlib.Path) -> Record | None:
    """A record from disk; None for one that is not there or cannot be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def _check_path(record: Record, path: str, doing: str) -> None:
    if record.path != path:
        raise errors.Conflict(f"cannot {doing}: this upload is for {record.path}")


def _check_target(place: file_place.Place, doing: str) -> os.stat_result | None:
    found = place.look()
    if found is None:
        file_place.check_new(place.name, doing)
    else:
        file_info.check_regular(found, doing)
    return found


def _same(record: Record, params: files.CommitParams, done: files.FileInfo, doing: str) -> files.FileInfo:
    if (params.size, params.sha256) != (record.size, record.sha256):
        raise errors.Conflict(f"cannot {doing}: this upload is done, with another content")
    return done
