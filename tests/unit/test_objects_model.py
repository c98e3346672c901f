"""An object against plain bytes: whatever is read, failed, let go, closed and opened again, in any order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from unit.object_world import KIB, FakeRoom, Request, content, source_of, world

from octuefs.content.objects import CloudObject
from octuefs.errors import StoreUnavailable
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.traffic import Traffic

SIZE = 3_000_000
DATA = content(SIZE)
OFFSETS = st.integers(0, SIZE)
SIZES = st.sampled_from([1, 4 * KIB, 128 * KIB, 1_000_000])


class ObjectModel(RuleBasedStateMachine):
    """One reader; what is fetched ahead comes in threads."""

    @initialize(
        allowance=st.sampled_from([300 * KIB, 1_000_000, SIZE]),
        limit=st.sampled_from([None, 500_000]),
        piece=st.sampled_from([50_000, 1 << 20]),
    )
    def begin(self, allowance: int, limit: int | None, piece: int) -> None:
        self.source = source_of(DATA, piece=piece)
        self.source.before = self.before
        self.room = FakeRoom(SIZE, allowance=allowance, limit=limit)
        self.at = world(self.source, self.room, workers=4)
        self.failing_after: int | None = None

    def before(self, request: Request, at: int) -> None:
        if self.failing_after is not None and at - request.start >= self.failing_after:
            raise StoreUnavailable("not now")

    @rule(offset=OFFSETS, size=SIZES, ahead=st.sampled_from([None, 0, 600 * KIB]))
    def read(self, offset: int, size: int, ahead: int | None) -> None:
        try:
            found = self.at.object.read(offset, size, ahead)
        except StoreUnavailable:
            assert self.failing_after is not None
        else:
            assert found == DATA[offset : offset + size]

    @rule(offset=OFFSETS, size=SIZES)
    def read_now(self, offset: int, size: int) -> None:
        into = memoryview(bytearray(size))
        count = self.at.object.read_now(offset, into)
        assert count is None or into[:count] == DATA[offset : offset + size]

    @rule(after=st.sampled_from([0, 60_000]))
    def fail(self, after: int) -> None:
        self.failing_after = after

    @rule()
    def recover(self) -> None:
        self.failing_after = None

    @rule()
    def rest_and_wake(self) -> None:
        self.at.object.rest()
        self.at.object.wake()

    @precondition(lambda self: self.failing_after is None)
    @rule()
    def fetch_all(self) -> None:
        if self.at.object.fetch_all():
            assert self.at.object.read(0, SIZE, 0) == DATA

    @rule()
    def reopen(self) -> None:
        """Close it, and open it with what the part kept, to be proven."""
        part = self.at.object.close()
        if part is not None:
            assert part.extents.total == sum(end - start for start, (end, _) in part.pieces.items())
            for start, (end, crc32c) in part.pieces.items():
                assert extend_crc32c(0, DATA[start:end]) == crc32c
            part.restore({**part.kept, **part.pieces})
            part.extents.remove(0, SIZE)
            part.pieces = {}
        self.at.object = CloudObject(
            self.source, self.source.facts, room=self.room, workers=self.at.workers, traffic=Traffic()
        )

    @invariant()
    def nothing_wrong_is_kept(self) -> None:
        assert all(crc32c == extend_crc32c(0, DATA) for _, crc32c in self.room.completed_parts)

    def teardown(self) -> None:
        part = self.at.object.close()
        self.at.settle()
        if part is None:
            part = self.room.part
        else:
            kept = sum(end - start for start, (end, _) in part.kept.items())
            assert self.room.counted <= part.extents.total + kept, "what is not here does not count"
        if part is not None:
            part.close()


TestObjectModel = ObjectModel.TestCase
TestObjectModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
