"""Several lambdas a pair against a loop over them."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import toy
from methods.shared import problem
from multimix.distill import SelfDistilled
from multimix.methods import Chain, DecoupledMixup, Mixup, MixupPath
from toy import seeded


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_the_mean_over_all_points_of_all_pairs(mode, soft):
    network, inputs, targets, rows = problem(7, 6, 6, soft=soft)
    method = MixupPath(lambdas=3, alpha=2.0, mode=mode)
    drawn = method.draw(network, inputs, targets, seeded())
    wanted, lams = 0.0, drawn.lams.expand(3, 7)
    for lam in lams:
        for i, j in enumerate(drawn.partners.tolist()):
            image, label = (lam[i].double() * t[i] + (1 - lam[i].double()) * t[j] for t in (inputs, rows))
            wanted = wanted - (label * network(image[None])[0].log_softmax(-1)).sum() / 21
    network.seen.clear()
    torch.testing.assert_close(method(network, inputs, targets, generator=seeded()).total, wanted)
    assert [len(seen) for seen in network.seen] == [21]
    assert len(lams[:, 0].unique()) == 3
    assert len(lams[0].unique()) == {"batch": 1, "pair": 4, "elem": 7}[mode]
    if mode == "pair":
        assert torch.equal(lams[:, drawn.partners], lams)


def test_one_point_is_mixup_and_the_data_go_on():
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 6, 6)
    one, plain = (method(network, inputs, targets, generator=seeded()).total for method in (MixupPath(1), Mixup()))
    torch.testing.assert_close(one, plain)
    mixed, rows = MixupPath(4).mix(inputs, targets, num_classes=5, generator=seeded())
    assert len(mixed) == 28
    ours = MixupPath(4)(network, inputs, targets, generator=seeded()).total
    torch.testing.assert_close(ours, cross_entropy(network(mixed), rows))
    for method in (Chain(MixupPath(2), Mixup()), SelfDistilled(MixupPath(2))):
        assert method(network, inputs, targets, generator=seeded()).total.isfinite()


def test_label_maps_are_mixed_at_every_point():
    network = toy.Toy(width=6, classes=5).eval()
    network.pool = lambda features: features
    inputs, maps = torch.randn(4, 9, 6, generator=seeded()), torch.randint(5, (4, 9), generator=seeded())
    drawn = MixupPath(3).draw(network, inputs, maps, seeded())
    wanted = cross_entropy(network(drawn.mix(inputs)).flatten(0, 1), drawn.mix_targets(toy.one_hot(maps)).flatten(0, 1))
    torch.testing.assert_close(MixupPath(3)(network, inputs, maps, generator=seeded()).total, wanted)


@pytest.mark.bad_input
def test_it_is_not_what_mixes_pairs_once():
    with pytest.raises(TypeError, match=r"^method must mix pairs of examples, .*, got MixupPath"):
        DecoupledMixup(MixupPath())(toy.images(), *toy.batch(7, 3, 6, 6))
