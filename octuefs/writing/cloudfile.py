"""One file of a cloud dataset that is open, dirty or on its way: what all its handles share.

It is *stored* as long as the bucket has it as it is. The first write stages its content (see `contents.py`), a close
freezes that, an `Uploader` asks for what is to be stored (`next_upload`) and says when it is (`stored`).
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from octuefs.entries import Removed
from octuefs.errors import Conflict, LocalFailure, OctuefsError, Unsupported, again
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.writing.cloud_facts import generation_of
from octuefs.writing.contents import Content
from octuefs.writing.filebytes import FileBytes
from octuefs.writing.filerows import FILE, Recovered, Sum, recovered_entry
from octuefs.writing.properties import CONTENT_TYPE, guessed_type, merged, with_attributes
from octuefs.writing.streams import cancel_in_background
from octuefs.writing.uploads import Upload


class Incomplete(LocalFailure):
    """Something that was written did not fit on the staging disk."""


class CloudFile(FileBytes):
    """A file that is closed, stored, renamed and removed."""

    # --- closing and storing

    def begin(self, content: Content) -> None:
        """Make `content` what is new in this file."""
        with self._state:
            self.content = content
            self._note_write(content)

    def freeze(self, *, persistent: bool) -> bool:
        """Have what was written since the last time stored as it is now; say whether anything is to be stored.

        :raise LocalFailure: where the staging disk was too full for some of it
        """
        with self._state:
            if self.is_removed:
                return False
            self.check()
            if self._full is not None:
                text = f"{self.path}: not all of it could be written, so nothing is stored: {self._full}"
                raise again(self._full, text, Incomplete)
            if not self._dirty:
                return self.is_pending
            content = self.content
            assert content is not None
            content.frozen, content.persistent = True, persistent
            self._dirty = False
            older = [content for content in self._queue if content is not self._in_flight]
            self._queue = [*filter(None, [self._in_flight]), content]
        content.crc32c()
        with self._state:
            if content in self._queue:
                self._put_row(content, "closed")
        if older:
            self._around.journal.settle()
            self._forget(older)
        return True

    def secure(self) -> None:
        """Return once what is frozen is durable on this machine."""
        with self._state:
            large = [content for content in self._queue if not content.is_small]
            for content in self._queue:
                if content.is_small and not content.in_journal:
                    content.in_journal = True
                    self._put_row(content, "closed")
        for content in large:
            with suppress(ValueError):  # it was stored meanwhile, and let go of
                content.staged.sync()
        self._around.journal.settle()

    def next_upload(self) -> Upload | None:
        """Return what is to be stored next; None for nothing."""
        with self._state:
            if self.is_removed or self.failure is not None:
                return None
            if not self._queue:
                base = self.base
                if not self._properties_changed or base is None:
                    return None
                return Upload(self.path, None, base.size, base.crc32c or 0, self._properties(), base, bytes_stand=True)
            *older, content = self._queue
            self._queue, self._in_flight = [content], content
            base = self.base
            if older:
                self._put_row(content, "closed")  # it knows what may have been stored of them
        self._forget(older)
        if content.first and (base is None or not content.continues(base)):
            content.bring_in(self._read_base)
        crc32c = content.crc32c()
        with self._state:
            self._sent = (*(it for it in self._sent if it != (content.size, crc32c)), (content.size, crc32c))
            return Upload(self.path, content, content.size, crc32c, self._properties(), self.base)

    def reconciled(self, upload: Upload, found: ObjectInfo | None, error: Conflict) -> Upload:
        """Return the upload over what was found, where only its metadata are not those of the base, or its bytes ours.

        Ours are also those of an earlier content that was sent, by a process that died maybe, and not answered.

        :raise Conflict: where it has other bytes, or the same field was changed to something else
        """
        base = upload.base
        bytes_stand = found is not None and upload.has_same_bytes(found)
        same = found is not None and base is not None and generation_of(found) == generation_of(base)
        earlier = found is not None and not bytes_stand and (found.size, found.crc32c) in self._sent
        if found is None or found.kind is not Kind.FILE or not (same or bytes_stand or earlier):
            what = "removed" if found is None else "stored another version of"
            raise Conflict(f"{self.path}: another writer {what} it meanwhile") from error
        theirs = found.custom_metadata or {}
        before = theirs if earlier else (base.custom_metadata or {}) if base is not None else {}
        with self._state:
            custom = merged(before, upload.properties.custom_metadata, theirs)
            unchanged = self.custom == upload.properties.custom_metadata
            self.custom = custom if unchanged else merged(before, self.custom, theirs)
            self.base = found
        content = upload.content
        if earlier and content is not None and content.first and not content.continues(found):
            content.bring_in(self._read_base)
        properties = replace(upload.properties, custom_metadata=custom)
        return replace(upload, properties=properties, base=found, bytes_stand=bytes_stand or upload.bytes_stand)

    def stored(self, upload: Upload, info: ObjectInfo) -> None:
        """Take note that the bucket has it."""
        with self._state:
            content = upload.content
            self.base, self._in_flight = info, None
            self._fixed = info.properties or self._fixed
            if content is not None and content in self._queue:
                self._queue.remove(content)
            self._properties_changed = self.custom != upload.properties.custom_metadata
            self._sent = ()
            if self.is_stored:
                self.custom = info.custom_metadata or {}
            else:  # first: what is to be stored after it must know of it, whenever this process may die
                self._put_rows()
            self._drop_stored_row()
            if content is not None:
                self._let_go_of(content)
            if self._stored_row is not None:
                self._put_rows()
        self.tell()

    def _let_go_of(self, content: Content) -> None:
        """Drop what is stored, unless handles go on with it."""
        content.session = None
        if self._properties_changed and not self._queue and not self._dirty:
            self._stored_row = content.id
        else:
            self._drop_row(content.id)
        if content is self.content and not content.first:
            content.frozen = False
            content.sent = 0
            return
        if content is self.content:
            self.content = None  # the object has all of it, and the next append begins after that
        content.forget()

    def _drop_stored_row(self) -> None:
        if self._stored_row is not None:
            self._drop_row(self._stored_row)
            self._stored_row = None

    def fail(self, error: OctuefsError) -> list[Recovered]:
        """Give up storing it: what was to be stored is kept, and said to be; what is written since goes on."""
        with self._state:
            lost, self._queue, self._in_flight = self._queue, [], None
            kept = []
            for content in lost:
                content.when = time.time()
                if content.session is not None:
                    cancel_in_background(self._around.store, self._around.streams, content.session)
                    content.session = None
                row = self._row(content, "failed", reason=str(error))
                self._around.journal.put(FILE, content.id, row)
                kept.append(recovered_entry(content.id, row, content.size))
                with suppress(OctuefsError):  # as durable as it can be
                    content.staged.sync()
                content.staged.close()
            self._drop_stored_row()
            self._properties_changed = False
            if self._dirty and self.content not in lost:
                return kept
            if self.base is None or self.content in lost:
                self.failure, self.content = error, None  # in this order, for those who read
            else:
                self.custom = self.base.custom_metadata or {}
            return kept

    def give_up_full(self) -> bool:
        """Drop a content of which the staging disk took only a part, to free the disk; say whether there was one."""
        with self._state:
            if self._full is None:
                return False
            if self.base is None and not self._queue:
                self.failure = self._full
            if self._dirty and (content := self.content) is not None:
                self.content = self._queue[-1] if self._queue else None
                self._dirty = False
                self._abandon(content)
                self._forget([content])
            self._full = None
            return True

    def forget_content(self) -> None:
        """Drop what is staged of a stored or removed file that nobody has open."""
        with self._state:
            content, self.content = self.content, None
            if content is not None:
                self._abandon(content)
                self._forget([content])

    def withdraw(self) -> None:
        """End showing it, where nothing of it is to be shown: what stands in the bucket is looked at again."""
        with self._state:
            if self.base is None:
                self._around.index.publish([Removed(self.path)])
            else:
                self._around.index.publish([self._around.classify(self.base)])
            self._let_go()

    def stand_again(self) -> None:
        """Show it where another file of its path was withdrawn."""
        with self._state:
            if not self.is_stored and not self.is_removed and self._around.stands(self):
                self._hold()
        self.tell()

    # --- names

    def follow(self, info: ObjectInfo) -> None:
        """Take note that the object was patched or rewritten by us, with the bytes it has; what is not stored stays."""
        with self._state:
            before = (self.base.custom_metadata or {}) if self.base is not None else {}
            theirs = info.custom_metadata or {}
            if self.is_stored:
                self.custom = theirs
            else:
                with suppress(Conflict):  # what was set here and is not stored yet is the later one
                    self.custom = merged(before, self.custom, theirs)
            self.base, self._fixed = info, info.properties
            self._abandon(self.content)
            if not self.is_stored:
                self._put_rows()

    def move(self, path: str, info: ObjectInfo | None) -> None:
        """Take another name; `info` is the object there, None where none is."""
        with self._state:
            old = self.path
            self._let_go()
            self.path = path
            self._abandon(self.content)
            if info is not None:
                self._inode = info.inode
                self.follow(info)
            else:
                self._inode = self._around.inode_of(path)
                if self._fixed.get(CONTENT_TYPE) == guessed_type(old):
                    self._fixed = {**self._fixed, CONTENT_TYPE: guessed_type(path)}
                self._put_rows()
            if not self.is_stored:
                self._hold()

    def remove(self) -> None:
        """Take note that it has no name any more: nothing of it is stored from now on."""
        with self._state:
            self.is_removed = True
            self._dirty = False
            self._properties_changed = False
            self._drop_stored_row()
            queue, self._queue, self._in_flight = self._queue, [], None
            self._abandon(self.content)
            self._forget([content for content in queue if content is not self.content])
            if self.content is not None:
                self._drop_row(self.content.id)
                self.content.frozen = False
                with suppress(OctuefsError):
                    self.content.staged.unlink()
            self._let_go()

    def set_unnamed(self, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Set attributes of a file that has no name any more; nobody but those who have it open ever sees them.

        :raise Unsupported: where it has one, by which it is to be changed
        """
        with self._state:
            if not self.is_removed:
                raise Unsupported(f"{self.path}: it has a name, and is changed by that")
            self.check()
            self.custom = with_attributes(self.custom, mode=mode, mtime_ns=mtime_ns)
            self._touch()

    def restore(self, content: Content | None, row_id: str, sent: Iterable[Sum] = ()) -> None:
        """Take up what an earlier process closed: a content to be stored, or (None) metadata of what is stored.

        :param sent: what it may have stored before that
        """
        with self._state:
            self._sent = tuple(sent)
            if content is None:
                self._properties_changed, self._stored_row = True, row_id
            else:
                content.frozen = content.persistent = True
                self.content, self._queue = content, [content]
                self._put_rows()
            self._hold()
        self.tell()
