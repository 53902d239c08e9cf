"""Files are decoded in the order of their jobs, and a worker that dies is named, whatever its sockets say."""

import pytest
import torch

from multimix.lab.data._batches import decoded
from multimix.lab.data._images import UnreadableError


def doubled(job):
    if job == 5:
        raise UnreadableError("five cannot be read")
    return torch.full((3,), 2 * job)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_the_order_of_the_jobs_without_the_global_generator(workers):
    before = torch.get_rng_state()
    made = list(decoded(doubled, [3, 1, 4, 1], workers=workers))
    assert [value.tolist() for value in made] == [[6] * 3, [2] * 3, [8] * 3, [2] * 3]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.bad_input
@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_said_when_its_turn_comes(workers):
    made = decoded(doubled, [1, 5], workers=workers)
    assert next(made).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match=r"^five cannot be read$"):
        next(made)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_batch_cut_off_names_the_worker(error):
    def dropped(job):
        raise error  # what the main process may meet while it takes a batch from a worker that has just been killed

    with pytest.raises(RuntimeError, match=r"DataLoader worker was killed by signal, or exited unexpectedly: "):
        next(decoded(dropped, [1], workers=0))
