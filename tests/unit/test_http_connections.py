"""Connections to a server that does what a test says, byte by byte."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from unit.object_world import PATIENCE, in_thread

from octuefs.stores.http_connections import Connections

Answer = bytes | Callable[[socket.socket], None]


def whole(body: bytes, *, close: bool = False) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n" + ("Connection: close\r\n" if close else "")
    return head.encode() + b"\r\n" + body


class Server:
    """Answers each request with what `answers` has next; None ends the connection unanswered."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        self.heads: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.changed = threading.Condition()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, call: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.connections.append(connection)
                self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (data := connection.recv(65536)):
                        return
                    head += data
                with self.changed:
                    self.heads.append(head)
                    answer = self.answers.pop(0)
                    self.changed.notify_all()
                if answer is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)

    def hang_up(self) -> None:
        """End all connections, as a server does with those nobody uses."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self, requests: int) -> None:
        """Return once so many requests came."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.heads) >= requests, PATIENCE)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.hang_up()
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server()
    yield it
    it.close()


@pytest.fixture
def connections(server: Server) -> Iterator[Connections]:
    it = Connections(server.url, silence=PATIENCE, proxied=False)
    yield it
    it.close()


def get(connections: Connections, path: str = "/a") -> bytes:
    with connections.get(path, {"Range": "bytes=0-9"}) as response:
        return response.read()


def test_what_is_asked_is_what_is_sent(server: Server, connections: Connections) -> None:
    server.answers = [whole(b"abc")]
    assert get(connections, "/o/a%2Fb?alt=media") == b"abc"
    head = server.heads[0].decode()
    assert head.startswith("GET /o/a%2Fb?alt=media HTTP/1.1\r\n")
    assert "Range: bytes=0-9\r\n" in head
    assert "Accept-Encoding" not in head


def test_a_connection_serves_one_request_after_the_other(server: Server, connections: Connections) -> None:
    server.answers = [whole(b"abc"), whole(b""), whole(b"def")]
    assert [get(connections) for _ in range(3)] == [b"abc", b"", b"def"]
    assert len(server.connections) == 1


def test_requests_at_the_same_time_have_a_connection_each_and_share_them_later(
    server: Server, connections: Connections
) -> None:
    together = threading.Barrier(4)

    def answer(connection: socket.socket) -> None:
        together.wait(PATIENCE)
        connection.sendall(whole(b"abc"))

    server.answers = [answer] * 4 + [whole(b"x")] * 4
    assert [it.result() for it in [in_thread(lambda: get(connections)) for _ in range(4)]] == [b"abc"] * 4
    assert [get(connections) for _ in range(4)] == [b"x"] * 4
    assert len(server.connections) == 4


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew_and_nothing_fails(
    server: Server, connections: Connections
) -> None:
    server.answers = [whole(b"abc"), whole(b"def")]
    get(connections)
    server.hang_up()
    server.threads[1].join(PATIENCE)
    assert get(connections) == b"def"
    assert len(server.connections) == 2
    assert len(server.heads) == 2


def test_a_new_connection_that_the_server_closes_unanswered_fails(server: Server, connections: Connections) -> None:
    server.answers = [None]
    with pytest.raises(ConnectionError):
        get(connections)
    assert len(server.connections) == 1, "whoever asks knows better how often to try"


def test_an_answer_that_says_so_ends_its_connection(server: Server, connections: Connections) -> None:
    server.answers = [whole(b"abc", close=True), whole(b"def")]
    assert get(connections) == b"abc"
    assert get(connections) == b"def"
    assert len(server.connections) == 2


def test_an_answer_that_is_not_read_to_its_end_costs_the_connection(server: Server, connections: Connections) -> None:
    server.answers = [whole(b"abcdef"), whole(b"ghi")]
    with connections.get("/a", {}) as response:
        assert response.read(3) == b"abc"
    assert get(connections) == b"ghi"
    assert len(server.connections) == 2


def test_who_leaves_with_an_error_costs_the_connection(server: Server, connections: Connections) -> None:
    server.answers = [whole(b"abcdef"), whole(b"ghi")]

    def leave() -> None:
        with connections.get("/a", {}) as response:
            response.read()
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert get(connections) == b"ghi"
    assert len(server.connections) == 2


def test_a_body_that_is_cut_short_ends_where_it_ends(server: Server, connections: Connections) -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\nabc")
        connection.shutdown(socket.SHUT_RDWR)

    server.answers = [cut, whole(b"def")]
    with connections.get("/a", {}) as response:
        assert response.read(10) == b"abc"
        assert response.read(7) == b""
    assert get(connections) == b"def"
    assert len(server.connections) == 2


def test_a_body_in_chunks_is_read_and_its_connection_serves_on(server: Server, connections: Connections) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    server.answers = [chunked, whole(b"f")]
    assert get(connections) == b"abcde"
    assert get(connections) == b"f"
    assert len(server.connections) == 1


def test_a_body_in_chunks_that_is_cut_short_is_an_error(server: Server, connections: Connections) -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        connection.shutdown(socket.SHUT_RDWR)

    server.answers = [cut]
    with pytest.raises(http.client.HTTPException):
        get(connections)


def test_a_body_that_comes_slowly_comes_whole(server: Server, connections: Connections) -> None:
    go_on = threading.Event()

    def slowly(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        assert go_on.wait(PATIENCE)
        connection.sendall(b"def")

    server.answers = [slowly]
    with connections.get("/a", {}) as response:
        assert response.read(3) == b"abc"
        go_on.set()
        assert response.read(3) == b"def"


def test_a_server_that_says_nothing_for_too_long_times_out_and_is_not_asked_again(server: Server) -> None:
    silent = threading.Event()
    server.answers = [whole(b"abc"), lambda connection: bool(silent.wait(PATIENCE)) and None]
    connections = Connections(server.url, silence=0.1, proxied=False)
    assert get(connections) == b"abc"
    with pytest.raises(TimeoutError):
        get(connections)
    silent.set()
    assert len(server.heads) == 2
    connections.close()


def test_a_server_that_does_not_speak_http_is_an_error(server: Server, connections: Connections) -> None:
    server.answers = [b"SSH-2.0-OpenSSH\r\n"]
    with pytest.raises(http.client.HTTPException):
        get(connections)


def test_no_server_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as it:
        port = it.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        get(Connections(f"http://127.0.0.1:{port}", silence=1, proxied=False))


def test_closing_ends_what_is_under_way_and_a_later_use_connects_anew(server: Server, connections: Connections) -> None:
    held = threading.Event()
    server.answers = [whole(b"abc"), lambda connection: bool(held.wait(PATIENCE)) and None, whole(b"def")]
    get(connections)
    waits = in_thread(lambda: get(connections))
    server.wait(2)
    connections.close()
    with pytest.raises((OSError, http.client.HTTPException)):
        waits.result()
    held.set()
    assert get(connections) == b"def"


def test_requests_go_by_the_environments_proxy_where_that_is_wanted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.answers = [b"HTTP/1.1 200 Connection established\r\n\r\n", whole(b"abc")]
    connections = Connections("http://storage.example.test:81", silence=PATIENCE, proxied=True)
    assert get(connections) == b"abc"
    assert server.heads[0].startswith(b"CONNECT storage.example.test:81 ")
    connections.close()
