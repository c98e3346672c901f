"""How one object of a bucket moves: copied on the server, its checksum compared, and only then removed.

Each step names the generation it is about, so that nothing goes which nobody has seen. Any thread may call.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from octuefs.errors import (
    ChecksumMismatch,
    Conflict,
    NotFound,
    OctuefsError,
    StoreUnavailable,
    TimedOut,
    TooBig,
    Unsupported,
)
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import ObjectProperties, ObjectStore, Precondition
from octuefs.writing.cloud_facts import CloudFacts, condition_of, generation_of
from octuefs.writing.cloud_metadata import ATTEMPTS
from octuefs.writing.properties import patch_between

Custom = Mapping[str, str]

UNCLEAR = (StoreUnavailable, TimedOut)
"""Failures after which a request may have been carried out all the same."""


class Unsure(StoreUnavailable):
    """A copy may stand, or does; the journal's row of the rename must stay, so that it goes on later."""


def unchanged(custom: Custom) -> Custom:
    """Return custom metadata as they are."""
    return custom


@dataclass(frozen=True, slots=True)
class Move:
    """The object `source` is to stand at `new`, in the place of `target` (a generation, 0 for none)."""

    source: ObjectInfo
    new: str
    target: int = 0
    described: Callable[[Custom], Custom] = unchanged
    """Makes the custom metadata that it is to have out of those it had."""
    fixed: Mapping[str, str] | None = None
    """The headers that it is to have, as far as the bucket can give others to a copy; None for those it had."""

    @property
    def old(self) -> str:
        """Where it stands."""
        return self.source.path


class Moves:
    """Copies and removes the objects of one dataset."""

    def __init__(self, store: ObjectStore, facts: CloudFacts, report: Report, *, compose: bool) -> None:
        self._store = store
        self._facts = facts
        self._report = report
        self._compose = compose

    def present(self, path: str) -> ObjectInfo | None:
        """Return the object at a path, None where there is none."""
        try:
            info = self._store.stat(path)
        except NotFound:
            return None
        return info if info.kind is Kind.FILE else None

    def copy(self, move: Move) -> ObjectInfo:
        """Copy the object, and describe the copy as it is to be; after a failure there is none, but for `Unsure`.

        :raise Conflict: where another version stands at either path
        :raise NotFound: where the source is gone
        :raise Unsure: where a copy may stand
        """
        source = move.source
        if source.crc32c is None:
            raise Unsupported(f"{move.old}: the store does not tell its checksum, so no copy of it can be proven")
        custom = dict(source.custom_metadata or {})
        composed = self._compose and move.fixed not in (None, source.properties)
        composed = composed and self._store.bucket_facts().composes
        if composed:
            custom = dict(move.described(custom))
        try:
            copy = self._compose_copy(move, custom) if composed else self._rewrite(move)
        except NotFound:
            if self._facts.look(move.old) is None:
                raise
            raise self._facts.conflict(move.old, "renamed") from None
        except (Conflict, *UNCLEAR) as error:
            made = self._made(move, custom, error)
            if made is None and isinstance(error, Conflict):
                self._facts.look(move.old)
                raise self._facts.conflict(move.new, "replaced") from None
            if made is None:
                raise
            copy = made
        if not has_bytes_of(copy, source):
            with suppress(OctuefsError):
                self._store.delete(move.new, condition_of(copy))
            raise ChecksumMismatch(f"{move.new}: other bytes arrived than {move.old} has; it stands where it was")
        if composed:
            return copy
        try:
            return self.describe(copy, move)
        except OctuefsError as error:
            if move.target:  # what stood there is gone: no way back
                raise Unsure(f"{move.new}: it is a copy of {move.old} by now, without all metadata: {error}") from error
            self._take_back_or_say_so(copy, error)
            raise

    def _rewrite(self, move: Move) -> ObjectInfo:
        return self._store.rewrite(move.old, generation_of(move.source), move.new, Precondition(move.target))

    def _compose_copy(self, move: Move, custom: Custom) -> ObjectInfo:
        part = (move.old, generation_of(move.source))
        properties = ObjectProperties(custom, move.fixed or {})
        return self._store.compose(move.new, [part], properties, Precondition(move.target))

    def _made(self, move: Move, custom: Custom, error: OctuefsError) -> ObjectInfo | None:
        """Return the copy if it was made all the same, and only the answer lost."""
        try:
            found = self.present(move.new)
        except UNCLEAR:
            raise Unsure(f"{move.new}: it may be a copy of {move.old} by now: {error}") from error
        if found is None or generation_of(found) == move.target or not has_bytes_of(found, move.source):
            return None
        return found if dict(found.custom_metadata or {}) == custom else None

    def _take_back_or_say_so(self, copy: ObjectInfo, error: OctuefsError) -> None:
        try:
            self.remove_copy(copy)
        except OctuefsError:
            raise Unsure(f"{copy.path}: it is a copy that could not be described, nor taken back: {error}") from error

    def describe(self, copy: ObjectInfo, move: Move) -> ObjectInfo:
        """Give a copy the metadata that it is to have."""
        custom = copy.custom_metadata or {}
        try:
            patch = patch_between(custom, move.described(custom))
        except TooBig as error:  # by what another added in this moment
            self._report.failure(f"{move.new}: not all metadata of what stood there could be kept: {error}")
            return copy
        return self._store.patch(move.new, patch, Precondition(generation_of(copy))) if patch else copy

    def remove_source(self, move: Move, copy: ObjectInfo) -> tuple[ObjectInfo, ObjectInfo | None]:
        """Remove the object where it was; return the copy, to which metadata come along that were changed meanwhile.

        A new version, stored there by another meanwhile, stays, and is returned too.
        """
        source = move.source
        for _ in range(ATTEMPTS):
            try:
                self._store.delete(move.old, condition_of(source))
            except NotFound:
                return copy, None
            except UNCLEAR:
                if self.present(move.old) is not None:
                    raise
                return copy, None
            except Conflict:
                present = self.present(move.old)
                if present is None or generation_of(present) != generation_of(source):
                    return copy, present
                patch = patch_between(source.custom_metadata or {}, present.custom_metadata or {})
                if patch:
                    copy = self._store.patch(move.new, patch, Precondition(generation_of(copy)))
                source = present
                continue
            return copy, None
        raise Conflict(f"{move.old}: it keeps changing, so it stands there beside its copy {move.new}")

    def remove_copy(self, copy: ObjectInfo) -> None:
        """Take back a copy."""
        with suppress(NotFound):
            self._store.delete(copy.path, condition_of(copy))


def has_bytes_of(copy: ObjectInfo, source: ObjectInfo) -> bool:
    """Say whether both have the same bytes, as far as their checksums tell."""
    return (copy.crc32c, copy.size) == (source.crc32c, source.size)
