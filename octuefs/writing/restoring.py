"""What earlier processes left of a cloud dataset's files: what was closed is stored now, the rest is kept.

Runs once, before anybody writes. Every row of the journal is looked at for itself: one that cannot be taken up stays.
"""

from collections.abc import Callable
from pathlib import Path

from octuefs.errors import OctuefsError
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo
from octuefs.writing.cloudfile import CloudFile
from octuefs.writing.contents import Content
from octuefs.writing.filerows import FILE, Row, Sum, base_of, small_data
from octuefs.writing.filetable import FileTable
from octuefs.writing.journal import Journal
from octuefs.writing.leftovers import Leftovers

Make = Callable[[str, ObjectInfo | None, Row], CloudFile]
"""Makes a file of a path, its object, and its row."""


class Restorer:
    """Takes up what is in a journal and its staging folder."""

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        table: FileTable,
        leftovers: Leftovers,
        report: Report,
        make: Make,
        enqueue: Callable[[CloudFile], object],
        cancel: Callable[[str], object],
    ) -> None:
        """`enqueue` has a file stored, `cancel` ends a resumable upload."""
        self._journal = journal
        self._folder = folder
        self._table = table
        self._leftovers = leftovers
        self._report = report
        self._make = make
        self._enqueue = enqueue
        self._cancel = cancel

        self._sums: dict[str, list[Sum]] = {}
        """By path what was closed, and may have been stored."""

    def restore(self) -> None:
        """Take all of it up."""
        rows = self._journal.items(FILE)
        latest: dict[str, int] = {}
        for row in rows.values():
            if session := row.get("session"):
                self._cancel(session)
            if row["state"] == "closed":
                latest[row["path"]] = max(latest.get(row["path"], 0), int(row["number"]))
                self._sums.setdefault(row["path"], []).append((int(row["size"]), int(row["crc32c"])))
        # What was closed last comes first: it takes over what is known of those before it, which are dropped then.
        for id, row in sorted(rows.items(), key=lambda it: it[1].get("number", 0), reverse=True):
            try:
                self._take_up(id, row, latest.get(row["path"]))
            except (OctuefsError, OSError, LookupError, TypeError, ValueError) as error:
                self._report.failure(f"{row['path']}: what an earlier mount left of it is not taken up: {error}")
        for staged in [path for path in self._folder.iterdir() if path.name not in rows]:
            found = staged.stat()
            if found.st_size:
                row = {"path": f"unknown-{staged.name[:8]}", "when": found.st_mtime}
                self._leftovers.keep(staged.name, row, "octuefs ended before it had noted the file's name")
            else:
                staged.unlink()

    def _take_up(self, id: str, row: Row, latest: int | None) -> None:
        state, staged = row["state"], self._folder / id
        first = int(row.get("appended_to", 0))
        data = small_data(row)
        if state == "stored":
            self._enter(row, None, id)
        elif state == "closed" and row["number"] == latest and data is not None:
            staged.write_bytes(data)
            staged.chmod(0o600)
            self._store(id, row)
        elif not staged.exists():
            self._journal.drop(FILE, id)  # it was stored; only the word of that got lost
        elif state == "failed":
            self._leftovers.keep(id, row)
        elif state == "closed" and row["number"] == latest:
            self._store(id, row)
        elif state == "open" and staged.stat().st_size > first:
            self._leftovers.keep(id, row, "it was being written when octuefs ended")
        else:  # nothing was written, or what was closed later has its place
            self._journal.drop(FILE, id)
            staged.unlink()

    def _store(self, id: str, row: Row) -> None:
        """Have a closed content stored, if it is whole."""
        first, before = int(row.get("appended_to", 0)), int(row.get("crc32c_before", 0))
        content = Content(self._folder, first=first, crc32c_before=before, id=id)
        if content.size != row["size"] or content.crc32c() != row["crc32c"]:
            content.staged.close()
            self._leftovers.keep(id, row, "not all of it was on the disk when the machine stopped")
            return
        content.number, content.when = int(row["number"]), float(row["when"])
        self._enter(row, content, id)

    def _enter(self, row: Row, content: Content | None, id: str) -> None:
        file = self._make(str(row["path"]), base_of(row), row)
        self._table.enter(file, handles=0)
        sent = [(int(size), int(crc32c)) for size, crc32c in row.get("sent", ())]
        file.restore(content, id, [*sent, *self._sums.get(row["path"], ())])
        self._enqueue(file)
