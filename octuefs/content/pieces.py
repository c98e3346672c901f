"""Copying bytes from a store in pieces, several at a time, with their checksum."""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from octuefs.errors import ChecksumMismatch
from octuefs.model.hashes import combine_crc32c, extend_crc32c

PIECE_BYTES = 8 << 20


def copy_pieces(
    read: Callable[[int, int], bytes], write: Callable[[int, bytes], None], size: int, parallel: int
) -> int:
    """Give each piece of `size` bytes that `read(offset, size)` returns to `write(offset, data)`, in any order.

    :param parallel: how many threads read and write; with one, or one piece, it is this one
    :return: the checksum of all bytes
    :raise ChecksumMismatch: where fewer come
    """

    def copy(offset: int) -> tuple[int, int]:
        length = min(PIECE_BYTES, size - offset)
        data = read(offset, length)
        if len(data) != length:
            raise ChecksumMismatch(f"{len(data)} bytes came from offset {offset} where {length} are; try again")
        write(offset, data)
        return extend_crc32c(0, data), length

    offsets = range(0, size, PIECE_BYTES)
    if len(offsets) <= 1 or parallel <= 1:
        copied = [copy(offset) for offset in offsets]
    else:
        with ThreadPoolExecutor(min(parallel, len(offsets)), thread_name_prefix="pieces") as pool:
            futures = [pool.submit(copy, offset) for offset in offsets]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            copied = [future.result() for future in futures]
    crc32c = 0
    for piece, length in copied:
        crc32c = combine_crc32c(crc32c, piece, length)
    return crc32c
