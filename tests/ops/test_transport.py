"""Blocks that move, against the largest gain first."""

import pytest
import torch

from multimix.ops._transport import transport_blocks


def greedy(saliency, seen, eps):
    """Take the largest gain over all blocks and places that are left, until there is none; in loops, one image."""
    h, w = saliency.shape
    side = max(h - 1, w - 1, 1)
    pairs = []
    for i in range(h * w):
        for j in range(h * w):
            if not seen[j // w, j % w]:
                continue
            gain = float(saliency[i // w, i % w]) - eps * ((i // w - j // w) ** 2 + (i % w - j % w) ** 2) / side**2
            if gain > 0:
                pairs.append((-gain, i, j))
    result, moved = list(range(h * w)), set()
    filled = set()
    for _, i, j in sorted(pairs):
        if i not in moved and j not in filled:
            moved.add(i)
            filled.add(j)
            result[j] = i
    return torch.tensor(result).view(h, w)


@pytest.mark.parametrize(("h", "w"), [(2, 2), (4, 4), (3, 6), (7, 2), (1, 5), (5, 5)])
@pytest.mark.parametrize("eps", [0.05, 0.8, 20.0])
def test_the_largest_gain_comes_first(h, w, eps):
    generator = torch.Generator().manual_seed(h)
    saliency = torch.rand(6, h, w, generator=generator).pow(3)
    saliency /= saliency.sum((1, 2), keepdim=True)
    seen = torch.rand(6, h, w, generator=generator) < torch.linspace(0, 1, 6).view(-1, 1, 1)
    moved = transport_blocks(saliency, seen, eps)
    for i in range(6):
        assert torch.equal(moved[i], greedy(saliency[i], seen[i], eps)), i


def test_a_case_by_hand():
    """The right column is seen; top left outdoes top right, bottom left does not pay for its way."""
    saliency, seen = torch.tensor([[[0.6, 0.1], [0.2, 0.1]]]), torch.tensor([[[False, True], [False, True]]])
    assert transport_blocks(saliency, seen, 0.3).tolist() == [[[0, 0], [2, 3]]]
    # At half the price bottom left gains 0.05 to its right, less than who is there, and top right has nowhere to go.
    assert transport_blocks(saliency, seen, 0.15).tolist() == [[[0, 0], [2, 3]]]
    # For almost nothing bottom left goes in.
    assert transport_blocks(saliency, seen, 0.01).tolist() == [[[0, 0], [2, 2]]]


def test_no_block_shows_twice_and_hidden_places_keep_theirs():
    generator = torch.Generator().manual_seed(0)
    saliency = torch.rand(20, 6, 6, generator=generator)
    seen = torch.rand(20, 6, 6, generator=generator) < 0.4
    moved = transport_blocks(saliency, seen, 0.8)
    for sources, places in zip(moved, seen, strict=True):
        shown = sources[places].tolist()
        assert len(set(shown)) == len(shown)
        assert torch.equal(sources[~places], torch.arange(36).view(6, 6)[~places])


def test_nothing_salient_moves_nothing():
    seen = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(transport_blocks(torch.zeros(3, 4, 4), seen, 0.8)[1], torch.arange(16).view(4, 4))


def test_free_moves_fill_what_is_seen_with_the_most_salient():
    saliency = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(1))
    seen = torch.zeros(1, 3, 3, dtype=torch.bool)
    seen[0, 1] = True
    moved = transport_blocks(saliency, seen, 0.0)
    assert set(moved[0, 1].tolist()) == set(saliency.flatten().topk(3).indices.tolist())


@pytest.mark.bad_input
def test_impossible_moves_are_refused():
    with pytest.raises(ValueError, match="eps must not be negative"):
        transport_blocks(torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), -1.0)
    with pytest.raises(ValueError, match="seen must have the shape of saliency"):
        transport_blocks(torch.ones(1, 2, 2), torch.ones(1, 2, 3, dtype=torch.bool), 1.0)
