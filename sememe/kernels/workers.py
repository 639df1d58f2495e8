"""Threads that share out chunks of rows or features.

Chunks are fixed by the kernel, never by the number of threads, and every output element is written
by one chunk alone, so results do not depend on how many threads there are or who was faster. Inside
a worker torch runs on one thread: two single-threaded products beat one that is split in two, and
nothing waits at a barrier when the machine is shared. Work that is one chunk runs in the caller,
where torch may split its products.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    threads = torch.get_num_threads()
    key = (os.getpid(), threads)  # a forked child cannot use its parent's threads
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, "sememe-kernel", initializer=_alone)
        # torch keeps the last number any thread asked for as the default of new threads: start all
        # workers now (they meet at a barrier), then set the caller's number again.
        barrier = threading.Barrier(threads)
        list(_pools[key].map(lambda _: barrier.wait(), range(threads)))
        torch.set_num_threads(threads)
    return _pools[key]


def _alone() -> None:
    """Let torch run on this thread alone, from now on."""
    torch.get_num_threads()  # a thread's first use of torch takes the default, and would undo 1
    torch.set_num_threads(1)


def share_out(work: Callable[[int, int], None], total: int, chunk: int) -> None:
    """Call ``work(start, stop)`` for every ``chunk`` of ``range(total)``, on all threads."""
    spans = [(start, min(start + chunk, total)) for start in range(0, total, chunk)]
    if len(spans) == 1:
        work(*spans[0])
    else:
        list(_pool().map(lambda span: work(*span), spans))
