import threading

import pytest
import torch

from sememe.kernels.workers import share_out


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_runs_alone_in_a_worker_and_as_before_outside(two_threads):
    """Also once it has run something there, which makes a thread take torch's default."""
    seen = {}

    def work(start, stop):
        assert torch.ones(100_000).add_(1).sum() == 200_000
        seen[start] = threading.get_ident(), torch.get_num_threads()

    share_out(work, 8, 1)
    assert sorted(seen) == list(range(8))
    assert threading.get_ident() not in {thread for thread, _ in seen.values()}
    assert {threads for _, threads in seen.values()} == {1}
    assert torch.get_num_threads() == 2


def test_chunks_cover_the_range_once_and_one_chunk_stays_in_the_caller():
    spans = []
    share_out(lambda start, stop: spans.append((start, stop)), 10, 4)
    assert sorted(spans) == [(0, 4), (4, 8), (8, 10)]
    share_out(lambda start, stop: spans.append(threading.get_ident()), 4, 4)
    assert spans[-1] == threading.get_ident()
