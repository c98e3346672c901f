"""Files that are fetched before they are opened: where a walk begins, how far it reaches, and when it stops."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from unit.object_world import PATIENCE, info_of

from octuefs.content import prefetch
from octuefs.content.prefetch import Place, Prefetch
from octuefs.errors import StoreUnavailable
from octuefs.stores.base import ObjectInfo

BUDGET = 1 << 20


class World:
    """A folder whose files are opened, and what is fetched of them."""

    def __init__(self, number: int = 300, *, size: int = 100, budget: int = BUDGET, key: str = "folder") -> None:
        self.files = [info_of(b"", f"{at:04}.dat")._replace(size=size) for at in range(number)]
        self.fetched: list[str] = []
        self.before_fetching: Callable[[ObjectInfo], None] = lambda info: None
        self.looked: list[str] = []
        self.lock = threading.Lock()
        self.under_way = self.most = 0
        self.prefetch = Prefetch(lambda info: 0 < info.size <= 1000, budget)
        self.place = self.view(self.files, key)

    def view(self, order: Sequence[ObjectInfo], key: str) -> Place:
        """A place that lists files in an order of its own."""
        places = {info.path: at for at, info in enumerate(order)}

        def after(info: ObjectInfo) -> Iterator[ObjectInfo]:
            self.looked.append(info.path)
            return iter(order[places[info.path] + 1 :])

        return Place(key, after, self._fetch)

    def _fetch(self, info: ObjectInfo) -> bool:
        with self.lock:
            self.fetched.append(info.path)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            self.before_fetching(info)
        finally:
            with self.lock:
                self.under_way -= 1
        return True

    def open(self, *numbers: int, place: Place | None = None) -> None:
        """Open files, one after the other, each once all is done that the ones before have set off."""
        for number in numbers:
            self.prefetch.opened(place or self.place, self.files[number])
            self.settle()

    def settle(self) -> None:
        """Return once all that is to be fetched by now is."""
        self.prefetch._planner.submit(int).result(PATIENCE)
        gone_by = threading.Event()
        for _ in range(10_000):
            with self.prefetch._lock:
                if not self.prefetch._waiting and not self.prefetch._working:
                    return
            gone_by.wait(0.001)
        raise AssertionError("it comes to an end")

    def numbers(self) -> list[int]:
        """The files that were fetched."""
        return sorted(int(path[:4]) for path in self.fetched)


@pytest.fixture
def worlds() -> Iterator[Callable[..., World]]:
    made = []

    def make(*arguments: int, **more: int) -> World:
        made.append(World(*arguments, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for world in made:
        world.prefetch.close()


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    return worlds()


def test_one_file_that_is_opened_has_nothing_fetched(world: World) -> None:
    world.open(5)
    world.open(5)
    assert world.fetched == []
    assert world.looked == [], "it is not even looked what comes after it"


def test_files_that_are_opened_here_and_there_have_nothing_fetched(world: World) -> None:
    world.open(5, 90, 40, 200, 130, 17, 280)
    assert world.fetched == []


def test_the_second_file_in_order_begins_a_walk_which_reaches_4_then_16_then_64_files(world: World) -> None:
    world.open(0)
    assert world.numbers() == []
    world.open(1)
    assert world.numbers() == [2, 3, 4, 5]
    world.open(2)
    assert world.numbers() == list(range(2, 3 + 16))
    for number in range(3, 20):
        world.open(number)
        assert world.numbers()[-1] <= number + 64
        assert number + 1 + 32 <= world.numbers()[-1] or number < 12
    assert world.numbers() == list(range(2, world.numbers()[-1] + 1))
    assert len(world.fetched) == len(set(world.fetched)), "each once"


def test_a_walk_ends_with_the_folder(worlds: Callable[..., World]) -> None:
    world = worlds(10)
    world.open(*range(10))
    assert world.numbers() == list(range(2, 10))


def test_a_walk_that_stops_has_no_more_fetched(world: World) -> None:
    world.open(0, 1, 2)
    reached = len(world.fetched)
    world.open(200)
    assert len(world.fetched) == reached


def test_what_waits_for_a_walk_that_stopped_is_not_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    world.before_fetching = lambda info: go_on.wait(PATIENCE) and None  # type: ignore[func-returns-value]
    world.prefetch.opened(world.place, world.files[0])
    world.prefetch.opened(world.place, world.files[1])
    world.prefetch._planner.submit(int).result(PATIENCE)
    world.prefetch.opened(world.place, world.files[2])
    world.prefetch._planner.submit(int).result(PATIENCE)
    monkeypatch.setattr(prefetch, "_IDLE_SECONDS", 0.0)  # as if nothing had been opened for long
    go_on.set()
    world.settle()
    assert len(world.fetched) <= 4


def test_a_file_that_was_opened_meanwhile_is_not_fetched(world: World) -> None:
    go_on = threading.Event()
    world.before_fetching = lambda info: go_on.wait(PATIENCE) and None  # type: ignore[func-returns-value]
    for number in range(4):
        world.prefetch.opened(world.place, world.files[number])
        world.prefetch._planner.submit(int).result(PATIENCE)
    for number in range(4, 15):
        world.prefetch.opened(world.place, world.files[number])
    go_on.set()
    world.settle()
    assert not set(range(10, 15)) & set(world.numbers())


def test_a_walk_goes_on_where_files_are_skipped(world: World) -> None:
    world.open(*range(0, 200, 2))
    assert max(world.numbers()) >= 220, "it reaches nearly as far as ever"
    assert len(world.fetched) == len(set(world.fetched))
    walk = world.prefetch._walks["folder"][0]
    assert walk.bytes == 100 * len(walk.upcoming)


def test_files_may_be_opened_somewhat_out_of_order(world: World) -> None:
    order = [at ^ 1 for at in range(100)]
    world.open(*order)
    assert set(range(8, 130)) <= set(world.numbers())
    assert len(world.prefetch._walks["folder"]) <= 2


def test_no_more_bytes_are_fetched_ahead_than_the_budget_and_one_file(worlds: Callable[..., World]) -> None:
    world = worlds(300, size=1000, budget=20_000)
    for number in range(100):
        world.open(number)
        ahead = [it for it in world.numbers() if it > number]
        assert len(ahead) <= 21
    assert max(world.numbers()) >= 110


def test_files_that_are_not_wanted_are_passed_over(world: World) -> None:
    for number in range(2, 100):
        world.files[number] = world.files[number]._replace(size=0 if number % 2 else 5000)
    place = world.view(world.files, "another")
    world.open(0, 1, place=place)
    assert world.numbers() == [100, 101, 102, 103]


def test_two_programs_that_walk_in_one_folder_are_told_apart(world: World) -> None:
    for step in range(30):
        world.open(step)
        world.open(150 + step)
    fetched = set(world.numbers())
    assert set(range(3, 60)) <= fetched
    assert set(range(153, 210)) <= fetched
    assert len(world.fetched) == len(fetched)


def test_a_view_is_walked_in_its_own_order(world: World) -> None:
    backwards = world.view(world.files[::-1], "view")
    world.open(100, 99, place=backwards)
    assert world.numbers() == [95, 96, 97, 98]


def test_reading_a_folder_backwards_has_nothing_fetched(world: World) -> None:
    world.open(*range(100, 50, -1))
    assert world.fetched == []


def test_openings_in_one_place_begin_no_walk_in_another(world: World) -> None:
    other = world.view(world.files, "other")
    world.open(0)
    world.open(1, place=other)
    assert world.fetched == []


def test_what_cannot_be_fetched_ahead_stops_nothing(world: World) -> None:
    def fail(info: ObjectInfo) -> None:
        raise StoreUnavailable("not now")

    world.before_fetching = fail
    world.open(*range(20))
    assert len(world.fetched) >= 40


@pytest.mark.expected_logs("cannot be fetched ahead")
def test_an_error_that_is_none_of_ours_stops_nothing_either(world: World) -> None:
    def fail(info: ObjectInfo) -> None:
        raise AssertionError

    world.before_fetching = fail
    world.open(*range(20))
    assert len(world.fetched) >= 40
    assert world.prefetch._working == 0


def test_few_are_fetched_at_once_where_the_store_answers_at_once(world: World) -> None:
    world.open(*range(100))
    assert world.most <= 4


def test_closing_fetches_nothing_more(worlds: Callable[..., World]) -> None:
    world = worlds()
    go_on, begun = threading.Event(), threading.Event()

    def wait(info: ObjectInfo) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    world.before_fetching = wait
    for number in range(3):
        world.prefetch.opened(world.place, world.files[number])
        world.prefetch._planner.submit(int).result(PATIENCE)
    assert begun.wait(PATIENCE)
    closing = threading.Thread(target=world.prefetch.close)
    closing.start()
    world.prefetch.opened(world.place, world.files[3])
    for _ in range(10_000):
        if not world.prefetch._waiting:
            break
        threading.Event().wait(0.001)
    go_on.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert len(world.fetched) <= 4
    world.prefetch.opened(world.place, world.files[4])


def test_many_places_are_not_remembered_for_ever(world: World) -> None:
    for number in range(200):
        place = world.view(world.files, f"place {number}")
        world.open(0, 1, place=place)
    assert len(world.prefetch._walks) <= 32
    assert len(world.prefetch._opened) <= 33
