import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import multimix as mm
from multimix.integrations.torchvision import MixCollate, MixTransform


def train(model, batches, optimizer):
    found = []
    for images, targets in batches:
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def loader(toy, **options):
    return DataLoader(TensorDataset(toy.images, toy.labels), batch_size=9, **options)


@pytest.mark.parametrize("method", [mm.Mixup(), mm.CutMix(), mm.Alternate((mm.Mixup(), mm.CutMix()))])
@pytest.mark.parametrize("way", ["collate", "transform"])
def test_equals_the_own_loop(toy, way, method):
    if way == "collate":
        batches = list(loader(toy, collate_fn=MixCollate(method, num_classes=4, seed=3)))
    else:
        mix = MixTransform(method, num_classes=4, seed=3)
        batches = [mix(*batch) for batch in loader(toy)]
    losses = train(toy.model, batches, torch.optim.SGD(toy.model.parameters(), lr=0.05))
    expected = toy.own_loop(
        toy.adapt(toy.twin), method, toy.batches, torch.optim.SGD(toy.twin.parameters(), lr=0.05), seed=3
    )
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_loss_falls_with_workers(toy):
    before = nn.functional.cross_entropy(toy.model(toy.images), toy.labels).item()
    optimizer = torch.optim.Adam(toy.model.parameters(), lr=0.01)
    mixing = loader(toy, collate_fn=MixCollate(mm.Mixup(), num_classes=4), num_workers=2, persistent_workers=True)
    for _ in range(12):
        train(toy.model, mixing, optimizer)
    assert nn.functional.cross_entropy(toy.model(toy.images), toy.labels).item() < 0.8 * before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("seed", [None, 5])
def test_workers_mix_differently_and_again_alike(seed):
    same = TensorDataset(torch.randn(4, 3, 2, 2).repeat(4, 1, 1, 1), torch.arange(4).repeat(4))
    collate = MixCollate(mm.Mixup(), num_classes=4, seed=seed)
    collate([same[0], same[1]])  # the generator of this process must not be inherited

    def epoch(loader):
        return [soft for _, soft in loader]

    def mixing():
        generator = torch.Generator().manual_seed(0)
        return DataLoader(same, batch_size=4, collate_fn=collate, num_workers=2, generator=generator)

    loader = mixing()
    first, second = epoch(loader), epoch(loader)
    assert len({str(soft.tolist()) for soft in [*first, *second]}) == 8
    torch.testing.assert_close(epoch(mixing()), first)


def test_goes_with_torchvisions_own_transforms(toy):
    choice = v2.RandomChoice([MixTransform(mm.CutMix(), num_classes=4), v2.MixUp(num_classes=4)])
    for _ in range(4):
        images, soft = choice(toy.images, toy.labels)
        assert images.shape == toy.images.shape
        assert soft.shape == (36, 4)
        torch.testing.assert_close(soft.sum(1), torch.ones(36))


def test_takes_pairs_and_images_of_torchvision_and_leaves_them(toy):
    mix = MixTransform(mm.Mixup(), num_classes=4, seed=0)
    images = tv_tensors.Image(toy.images)
    kept = images.clone()
    mixed, soft = mix((images, toy.labels))
    assert torch.equal(images, kept)
    assert type(mixed) is torch.Tensor
    expected = MixTransform("mixup", num_classes=4, seed=0)(toy.images, toy.labels)
    torch.testing.assert_close((mixed, soft), expected)


def test_odd_batches_and_a_single_example(toy):
    collate = MixCollate(mm.CutMix(), num_classes=4)
    for b in (1, 3):
        images, soft = collate([(toy.images[i], i) for i in range(b)])
        assert images.shape == (b, 3, 12, 12)
        torch.testing.assert_close(soft.sum(1), torch.ones(b))


def test_pickles_without_its_generator(toy):
    collate = MixCollate(mm.Mixup(), num_classes=4, seed=2)
    examples = list(zip(toy.images, toy.labels, strict=True))
    first = collate(examples)
    again = pickle.loads(pickle.dumps(collate))(examples)  # noqa: S301
    torch.testing.assert_close(first, again)


@pytest.mark.bad_input
def test_bad_arguments_are_named(toy):
    with pytest.raises(TypeError, match=r"method must mix inputs, .* got DenseMultiMix"):
        MixCollate(mm.DenseMultiMix(), num_classes=4)
    with pytest.raises(ValueError, match="network must be given: CoMixup"):
        MixCollate(mm.methods.CoMixup(), num_classes=4)
    with pytest.raises(ValueError, match="inputs must be images and labels of a mini-batch, got Tensor"):
        MixTransform(num_classes=4)(toy.images)
    with pytest.raises(ValueError, match="got nothing"):
        MixTransform(num_classes=4)()
    with pytest.raises(TypeError, match=r"inputs must be floating-point, got torch\.uint8"):
        MixTransform(num_classes=4)((255 * toy.images).byte(), toy.labels)
