"""A GCS server whose objects are computed from their names: 100,000 or 1,000,000 of them cost nothing to have.

    with GeneratorServer(1_000_000, delay=30) as server:
        ...  # programs find it by server.environment, the objects at gs://generated
        assert server.counts()["media"] == 0

It answers what reads: the bucket, lists (prefix, delimiter, pageToken, startOffset, endOffset, fields, maxResults), the
resource of an object, its content with a range and a generation. What the objects are stands in `generated`; that they
are listed as a true server lists them is proven beside fake-gcs-server. It is a process of its own:
`python -m support.generator --port PORT --objects NUMBER` runs one until it is ended.
"""

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote

from aiohttp import web

from support.gcs import GcsServer
from support.generated import BUCKET, MOST, Generated, Listing, Malformed, body, generation, resource

URL = f"gs://{BUCKET}"
_PATH = re.compile(r"(?:/download)?/storage/v1/b/(?P<bucket>[^/]+)(?P<list>/o(?:/(?P<name>[^/]+))?)?")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_COUNTS = "/counts"


class GeneratorServer(GcsServer):
    """The generator on a free port of 127.0.0.1; see `GcsServer`. It refuses whatever would change something.

    :param objects: how many there are
    :param per_folder: how many of them stand in a folder
    :param delay: milliseconds that each request takes longer
    """

    def __init__(
        self, objects: int, per_folder: int = 1000, delay: float = 0, *, public_port: int | None = None
    ) -> None:
        super().__init__(public_port=public_port)
        self._shape = ("--objects", str(objects), "--per-folder", str(per_folder), "--delay", str(delay))

    def counts(self) -> dict[str, int]:
        """Return how many requests there were so far: "bucket", "list", "object" (its resource) and "media"."""
        return dict.fromkeys(("bucket", "list", "object", "media"), 0) | self._request("GET", _COUNTS)

    def _command(self) -> Sequence[str]:
        place = ("--port", str(self._port), "--external-url", self.endpoint)
        return [sys.executable, "-m", "support.generator", *place, *self._shape]


class _Service:
    """Answers requests."""

    def __init__(self, objects: Generated, delay: float, endpoint: str) -> None:
        self._objects = objects
        self._delay = delay
        self._endpoint = endpoint
        self._counts: Counter[str] = Counter()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request, late where that is wanted."""
        path = request.raw_path.partition("?")[0]
        if path == _COUNTS:
            return web.json_response(self._counts)
        if self._delay:
            await asyncio.sleep(self._delay / 1000)
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "Method Not Allowed")
        if path == "/storage/v1/b":
            return _json(json.dumps({"kind": "storage#buckets", "items": [self._bucket()]}).encode())
        found = _PATH.fullmatch(path)
        if found is None or unquote(found["bucket"]) != BUCKET:
            return _refusal(404, "Not Found")
        try:
            if found["name"] is not None:
                return self._object(request, unquote(found["name"]), from_downloads=path.startswith("/download/"))
            return self._list(request) if found["list"] else self._tell_bucket()
        except Malformed as error:
            return _refusal(400, str(error))

    def _bucket(self) -> dict[str, str]:
        return {
            "kind": "storage#bucket",
            "id": BUCKET,
            "name": BUCKET,
            "location": "EU",
            "storageClass": "STANDARD",
            "timeCreated": "2024-01-01T00:00:00Z",
            "updated": "2024-01-01T00:00:00Z",
            "metageneration": "1",
            "selfLink": f"{self._endpoint}/storage/v1/b/{BUCKET}",
        }

    def _tell_bucket(self) -> web.Response:
        self._counts["bucket"] += 1
        return _json(json.dumps(self._bucket()).encode())

    def _list(self, request: web.BaseRequest) -> web.Response:
        self._counts["list"] += 1
        query = request.query
        most = query.get("maxResults", "0")
        if not most.isdecimal():
            raise Malformed("maxResults: it is no number")
        wanted = Listing(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start=query.get("startOffset", ""),
            end=query.get("endOffset", ""),
            token=query.get("pageToken", ""),
            most=min(int(most), MOST) or MOST,
            fields=query.get("fields", ""),
        )
        return _json(self._objects.page(wanted))

    def _object(self, request: web.BaseRequest, name: str, *, from_downloads: bool) -> web.Response:
        is_media = from_downloads or request.query.get("alt") == "media"
        self._counts["media" if is_media else "object"] += 1
        found = self._objects.find(name)
        if found is None or request.query.get("generation") not in (None, generation(*found)):
            return _refusal(404, "Not Found")
        if is_media:
            return _media(*found, request.headers.get("Range", ""))
        return _json(self._objects.described(*found, request.query.get("fields", "")))


def _media(folder: str, number: int, asked: str) -> web.Response:
    """Answer with content, or one range of it."""
    data = body(number)
    told = resource(folder, number, "")
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": told["contentType"],
        "ETag": f'"{told["etag"]}"',
        "X-Goog-Generation": told["generation"],
        "X-Goog-Metageneration": told["metageneration"],
        "X-Goog-Hash": f"crc32c={told['crc32c']},md5={told['md5Hash']}",
        "X-Goog-Stored-Content-Encoding": "identity",
        "X-Goog-Stored-Content-Length": told["size"],
    }
    form = _RANGE.fullmatch(asked)
    if form is None or not (form[1] or form[2]):
        return web.Response(headers=headers, body=data)
    first = int(form[1]) if form[1] else max(0, len(data) - int(form[2]))
    last = min(int(form[2]), len(data) - 1) if form[1] and form[2] else len(data) - 1
    if first > last:
        return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return web.Response(status=206, headers=headers, body=data[first : last + 1])


def _json(text: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=text, headers={"Content-Type": "application/json; charset=UTF-8"})


def _refusal(status: int, message: str) -> web.Response:
    error = {"code": status, "message": message, "errors": [{"domain": "global", "reason": message}]}
    return _json(json.dumps({"error": error}).encode(), status)


async def _serve(options: argparse.Namespace) -> None:
    objects = Generated(options.objects, options.per_folder, options.external_url)
    service = _Service(objects, options.delay, options.external_url)
    runner = web.ServerRunner(web.Server(service.answer, access_log=None, keepalive_timeout=600), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=1024).start()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until this is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--external-url", required=True, help="where clients find it")
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--per-folder", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0, help="milliseconds that each request takes longer")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
