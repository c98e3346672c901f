"""Several sources on a command line, each with the name of its folder in the mount: `turbines=gs://bucket/turbines`."""

import os
from collections.abc import Sequence

from octuefs.errors import BadValue
from octuefs.model.manifest import check_dataset_name
from octuefs.model.paths import parse_source, whole
from octuefs.report import printable


def is_named(text: str) -> bool:
    """Say whether an argument is NAME=SOURCE, and not a path or URL that has a "=" somewhere."""
    name, separator, _ = text.partition("=")
    return bool(separator) and "/" not in name and "://" not in name and not os.path.lexists(text)


def parse_named(texts: Sequence[str]) -> dict[str, str]:
    """Return the sources by name, in their order: absolute local paths, gs://bucket/path, and URLs as they were given.

    :raise BadValue: for a text that is no NAME=SOURCE, a name that no folder can have, two sources of one name, and
        what is no source
    """
    sources: dict[str, str] = {}
    for text in texts:
        if not is_named(text):
            raise BadValue(f"{_shown(text)} has no name; several sources are written NAME=SOURCE, each")
        name, _, source = text.partition("=")
        check_dataset_name(name)
        if name in sources:
            raise BadValue(f"two sources of one name: {printable(name)}; give each a name of its own")
        if not source:
            raise BadValue(f"{printable(name)}= names no source; write {printable(name)}=SOURCE")
        try:
            sources[name] = whole(parse_source(source))
        except BadValue as error:
            raise BadValue(f"{printable(name)}: {error}") from None
    return sources


def _shown(text: str) -> str:
    """Return an argument for a message: of a URL, which may be signed, nothing but what stands before its query."""
    return repr(printable(text.partition("?")[0] if "://" in text else text))
