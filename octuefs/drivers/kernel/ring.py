"""An io_uring of one thread, by the system calls and mapped rings alone (io_uring(7), io_uring_setup(2)).

The thread that makes a ring is the only one that may use it: what it is told arrives when it asks (`enter`), never in
between, so that nothing here needs a lock or a memory barrier.
"""

import ctypes
import errno
import mmap
import os
import struct
from typing import Final

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_OFFSET_SQ, _OFFSET_CQ, _OFFSET_SQES = 0, 0x8000000, 0x10000000

_SETUP_CQSIZE = 1 << 3
_SETUP_CLAMP = 1 << 4
_SETUP_SQE128 = 1 << 10
_SETUP_SINGLE_ISSUER = 1 << 12
_SETUP_DEFER_TASKRUN = 1 << 13
_FLAGS = _SETUP_CQSIZE | _SETUP_CLAMP | _SETUP_SQE128 | _SETUP_SINGLE_ISSUER | _SETUP_DEFER_TASKRUN

_ENTER_GETEVENTS = 1
_REGISTER_FILES = 2

_PARAMETERS = struct.Struct("=IIIIIII12x40x40x")
_RING_OFFSETS = struct.Struct("=IIIIIIII8x")
_SQ_OFFSETS_AT, _CQ_OFFSETS_AT = 40, 80
_CQE = struct.Struct("=Qi4x")

OP_READ: Final = 22
OP_URING_CMD: Final = 46
FIXED_FILE: Final = 1

SQE: Final = struct.Struct("=BBHiQQIIQQ")
"""Opcode, flags, priority, file, offset (or operation of a command), address, length, flags, user data, and 8 bytes
(the first of a command's own 80 are the next)."""
ENTRY_BYTES: Final = 128
COMMAND_AT: Final = 48
"""Where the 80 bytes of a command begin in an entry."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"io_uring: {os.strerror(code)}")
    return result


def address_of(memory: mmap.mmap, offset: int = 0) -> int:
    """Return where a writable mapping lies in memory; it must live as long as the kernel may use it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory, offset))


class Ring:
    """Places for submissions, of 128 bytes each, and a completion queue; only for the thread that makes it.

    What stands at a place stays there: who submits the same again and again writes only what is different.
    """

    def __init__(self, entries: int, files: list[int]) -> None:
        """Make one with at least so many places; `files` are used by their position, with FIXED_FILE.

        :raise OSError: ENOSYS, EPERM (`io_uring_disabled`, seccomp), EINVAL before Linux 6.1, ENOMEM
        """
        parameters = bytearray(120)
        _PARAMETERS.pack_into(parameters, 0, 0, 2 * entries, _FLAGS, 0, 0, 0, 0)
        where = (ctypes.c_char * len(parameters)).from_buffer(parameters)
        self._descriptor = _call(_SETUP, ctypes.c_uint(entries), where)
        try:
            self._map(parameters)
            if files:
                numbers = (ctypes.c_int * len(files))(*files)
                _call(
                    _REGISTER,
                    ctypes.c_long(self._descriptor),
                    ctypes.c_long(_REGISTER_FILES),
                    numbers,
                    ctypes.c_long(len(files)),
                )
        except BaseException:
            self.close()
            raise
        self.pending = 0
        self._head = 0
        self._tail = 0
        # The arguments of each call that `enter` may make, made once.
        rest = (ctypes.c_long(1), ctypes.c_long(_ENTER_GETEVENTS), ctypes.c_void_p(), ctypes.c_size_t(0))
        call, ring = ctypes.c_long(_ENTER), ctypes.c_long(self._descriptor)
        self._calls = [(call, ring, ctypes.c_long(number), *rest) for number in range(self._entries + 1)]

    def _map(self, parameters: bytearray) -> None:
        entries, completions = struct.unpack_from("=II", parameters)
        sq = _RING_OFFSETS.unpack_from(parameters, _SQ_OFFSETS_AT)
        cq = _RING_OFFSETS.unpack_from(parameters, _CQ_OFFSETS_AT)
        self._entries = entries
        submissions = mmap.mmap(self._descriptor, sq[6] + 4 * entries, offset=_OFFSET_SQ)
        self._completions = mmap.mmap(self._descriptor, cq[5] + _CQE.size * completions, offset=_OFFSET_CQ)
        self.sqes = mmap.mmap(self._descriptor, ENTRY_BYTES * entries, offset=_OFFSET_SQES)
        self.words = memoryview(self.sqes).cast("Q")
        """The same as `sqes`, as numbers of 8 bytes."""
        self._order = memoryview(submissions)[sq[6] : sq[6] + 4 * entries].cast("I")
        self._sq_mask, self._cq_mask, self._cqes = entries - 1, completions - 1, cq[5]
        self._sq_tail = ctypes.c_uint32.from_buffer(submissions, sq[1])
        self._cq_head = ctypes.c_uint32.from_buffer(self._completions, cq[0])
        self._cq_tail = ctypes.c_uint32.from_buffer(self._completions, cq[1])

    def submit(self, place: int) -> None:
        """Let what is written at a place, from `place * ENTRY_BYTES` on in `sqes`, go with the next `enter`.

        Until then nothing else may be written there.
        """
        self._order[self._tail & self._sq_mask] = place
        self._tail = (self._tail + 1) & 0xFFFF_FFFF
        self.pending += 1

    def enter(self) -> list[tuple[int, int]]:
        """Submit, wait until something is complete, and return (user data, result) of all that is.

        :raise OSError: where the ring has come to its end
        """
        self._sq_tail.value = self._tail
        while True:
            done: int = _syscall(*self._calls[self.pending])
            if done >= 0:
                self.pending -= done
                break
            if (number := ctypes.get_errno()) not in (errno.EINTR, errno.EAGAIN, errno.EBUSY):
                raise OSError(number, f"io_uring: {os.strerror(number)}")
        head, tail = self._head, self._cq_tail.value
        unpack, memory, mask, start = _CQE.unpack_from, self._completions, self._cq_mask, self._cqes
        found = []
        while head != tail:
            found.append(unpack(memory, start + (head & mask) * 16))
            head = (head + 1) & 0xFFFF_FFFF
        self._head = self._cq_head.value = head
        return found

    def close(self) -> None:
        """End it; what is under way is cancelled."""
        os.close(self._descriptor)
