"""What the datasets of a mount share: the limits and figures of what is asked, and the reading of cloud objects.

A mount makes one; the reading, with its disk cache, is begun for the first dataset in the cloud.
"""

import logging
import os
import threading
from pathlib import Path

from octuefs import places
from octuefs.config import MountConfig
from octuefs.content.blockcache import BlockCache
from octuefs.content.reading import Reading
from octuefs.disks import check_cache_folder
from octuefs.errors import OctuefsError
from octuefs.report import Report
from octuefs.stores.traffic import Traffic

logger = logging.getLogger(__name__)

_MOST_BYTES = 20 << 30
_SHARE = 5
"""One part in so many of the free disk is for the cache, where nobody says how large it is to be."""


class Resources:
    """What the datasets of one mount share. Any thread may call."""

    def __init__(self, config: MountConfig, report: Report) -> None:
        self.traffic = Traffic(upload_rate=config.upload_rate, download_rate=config.download_rate)
        self._config = config
        self._report = report
        self._lock = threading.Lock()
        self._reading: Reading | None = None

    def reading(self) -> Reading:
        """Return the reading of cloud objects."""
        with self._lock:
            if self._reading is None:
                config = self._config
                self._reading = Reading(
                    self._open_cache(), self.traffic, read_ahead=config.read_ahead, memory_limit=config.memory_limit
                )
            return self._reading

    def _open_cache(self) -> BlockCache | None:
        """Return the disk cache; None where there is to be none, or none can be had, which is said."""
        if self._config.cache_size == 0:
            return None
        try:
            folder = places.block_cache(self._config.cache_dir)
            check_cache_folder(str(folder))
            cache = BlockCache(folder, self.traffic)
            cache.bound(self._config.cache_size or _default_limit(folder, cache.total_bytes))
            return cache
        except (OctuefsError, OSError) as error:
            self._report.failure(f"nothing of the bucket is kept on this disk: {error}")
            return None

    def close(self) -> None:
        """Keep what is here for the next mount."""
        with self._lock:
            reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()


def _default_limit(folder: Path, present: int) -> int:
    facts = os.statvfs(folder)
    return min((facts.f_bavail * facts.f_frsize + present) // _SHARE, _MOST_BYTES)
