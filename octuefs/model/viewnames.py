"""Names of virtual folders: how labels, extensions, tags and hashes are written as path components.

DESIGN 3: in values "/", "," and "%" are percent-encoded, and so are "." and "..", control characters and
what has no bytes; an empty string is "%"; a comma between values means OR.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any
from urllib.parse import unquote_to_bytes

from octuefs.model.paths import NAME_MAX, path_bytes

NO_EXTENSION = "_"


def encode_name(text: str) -> str | None:
    """Return the component that stands for a value, or None where it would be longer than a name can be."""
    if text.isascii() and text.isalnum() and len(text) <= NAME_MAX:
        return text
    if text == "":
        return "%"
    if text in (".", ".."):
        return text.replace(".", "%2E")
    encoded = "".join(_percent(char) if char in "/,%" or _unprintable(char) else char for char in text)
    return encoded if len(path_bytes(encoded)) <= NAME_MAX else None


def decode_name(component: str) -> str:
    """Return the value that one component (or one alternative of a comma list) stands for."""
    if component == "%":
        return ""
    data = unquote_to_bytes(component.encode("utf-8", "surrogateescape"))
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def alternatives(component: str) -> list[str]:
    """Return the values of a component in which a comma means OR; an empty alternative is no value."""
    return [decode_name(part) for part in component.split(",") if part]


def encode_extension(extension: str) -> str | None:
    """Return the component of an extension; "_" is none, and an extension that is "_" is "%5F"."""
    if extension == NO_EXTENSION:
        return "%5F"
    return encode_name(extension) if extension else NO_EXTENSION


def decode_extension(component: str) -> str:
    """Return the extension that one alternative of a `by-ext` component stands for."""
    return "" if component == NO_EXTENSION else decode_name(component)


def scalar_text(value: Any) -> str | None:
    """Return the text of a tag's value as `by-tag` shows it: strings bare, other scalars as JSON; else None."""
    if isinstance(value, str):
        return value
    if type(value) is int or (type(value) is float and isfinite(value)):
        return repr(value)  # what JSON prints, sooner
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return None


def tag_entries(tags: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key component, value text) for each scalar of `tags`, nested keys joined with ".".

    A dot inside a nested key is "%2E", so that it is not taken for a level.
    """
    for key, value in tags.items():
        encoded = encode_name(key)
        if encoded is None:
            continue
        name = above + (encoded.replace(".", "%2E") if "." in encoded else encoded)
        if isinstance(value, Mapping):
            yield from tag_entries(value, name + ".")
        elif (text := scalar_text(value)) is not None:
            yield name, text


def _unprintable(char: str) -> bool:
    category = unicodedata.category(char)
    return category == "Cc" or (category == "Cs" and not "\udc80" <= char <= "\udcff")


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
