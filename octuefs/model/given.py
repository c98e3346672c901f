"""Metadata of a file that a list of files gives, or that stands in another folder's `.octue`, as an object's would.

A dataset of listed files has each one's metadata in the form of an object's custom metadata, wherever the file is.
"""

import json
from collections.abc import Mapping
from typing import Any

from octuefs.model.metadata import CUSTOM_PREFIX
from octuefs.model.values import stored_form


def as_custom_metadata(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the JSON of a datafile's record as custom metadata."""
    return {CUSTOM_PREFIX + key: json.dumps(stored_form(value)) for key, value in record.items()}


def with_given(custom: Mapping[str, str], given: Mapping[str, Any]) -> Mapping[str, str]:
    """Return custom metadata with those fields of the raw JSON in `given` that are not stored, as the SDK has it."""
    lacking = {key: value for key, value in given.items() if key not in custom and CUSTOM_PREFIX + key not in custom}
    return {**custom, **as_custom_metadata(lacking)} if lacking else custom
