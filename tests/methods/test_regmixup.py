"""RegMixup against a loop from its equation, and what it gives to a loop of somebody else's."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import toy
from methods.shared import problem
from multimix.methods import ERM, Chain, Mixup, RegMixup
from multimix.protocols import Teacher
from toy import seeded


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("eta", [1.0, 0.25])
@pytest.mark.parametrize("taught", [False, True])
def test_the_loss_is_that_of_clean_examples_and_of_mixed_pairs(soft, eta, taught):
    network, inputs, targets, rows = problem(5, 6, 6, soft=soft)
    method, other = RegMixup(eta=eta, mode="elem"), inputs.flip(-1) + 1
    drawn = method.draw(network, inputs, targets, seeded())
    teacher = Teacher(toy.images(seed=1).double().eval(), other, 0.3) if taught else None
    ours = method(network, inputs, targets, generator=seeded(), teacher=teacher)
    wanted = 0
    for i, j, lam in zip(range(5), drawn.partners.tolist(), drawn.lam.tolist(), strict=True):
        for weight, share in ((eta, lam), (1.0, 1.0)):
            label, image, view = (share * t[i] + (1 - share) * t[j] for t in (rows, inputs, other))
            if taught:
                label = 0.3 * label + 0.7 * teacher.network(view[None])[0].detach().softmax(-1)
            wanted = wanted - weight * (label * network(image[None])[0].log_softmax(-1)).sum() / 5 / (1 + eta)
    torch.testing.assert_close(ours.total, wanted)
    assert list(ours.terms) == (["labels", "teacher", "clean_labels", "clean_teacher"] if taught else
                                ["labels", "clean_labels"])  # fmt: skip


def test_one_pass_sees_all_of_them_and_the_data_alone_are_the_same():
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 6, 6)
    pairs = Mixup(alpha=20.0).draw(network, inputs, targets, seeded())
    mixed, rows = RegMixup().mix(inputs, targets, num_classes=5, generator=seeded())
    assert torch.equal(mixed, torch.cat([pairs.mix(inputs), inputs]))
    assert torch.equal(rows[7:], toy.one_hot(targets))
    ours = RegMixup()(network, inputs, targets, generator=seeded()).total
    assert [len(seen) for seen in network.seen] == [14]
    assert torch.equal(network.seen[0], mixed)
    torch.testing.assert_close(ours, cross_entropy(network(mixed), rows))
    torch.testing.assert_close(ours, Chain(RegMixup(), ERM())(network, inputs, targets, generator=seeded()).total)


def test_label_maps_are_mixed_beside_clean_ones():
    network = toy.Toy(width=6, classes=5).eval()
    network.pool = lambda features: features
    inputs, maps = torch.randn(4, 9, 6, generator=seeded()), torch.randint(5, (4, 9), generator=seeded())
    parts = [method(network, inputs, maps, generator=seeded()).total for method in (Mixup(alpha=20.0), ERM())]
    torch.testing.assert_close(RegMixup()(network, inputs, maps, generator=seeded()).total, sum(parts) / 2)


@pytest.mark.bad_input
def test_data_alone_cannot_be_weighed():
    with pytest.raises(ValueError, match=r"^eta must be 1 for the data alone, .* both halves alike, got 0\.5"):
        RegMixup(eta=0.5).mix(*toy.batch(7, 3, 6, 6), num_classes=5)
