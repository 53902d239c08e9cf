"""What a method is called with in place of a network: refused in a line that says what to write."""

import pytest
import torch
from torch import nn

import cases
import toy
from multimix.methods import ERM, METHODS, CutMix, ManifoldMixup, Mixup, MultiMix
from multimix.protocols import check_network

WRONG = {
    "a plain model": (lambda: nn.Linear(3, 5), "got Linear, which has no embed, pool, classify, head"),
    "a function": (lambda: lambda x: x, "got function, which has no embed"),
    "nothing": (lambda: None, "got NoneType, which has no embed"),
    "a class": (lambda: toy.Toy, "got the class Toy$"),
    "DataParallel": (
        lambda: nn.DataParallel(toy.images()),
        "got DataParallel; wrap a module of your own that holds net",
    ),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_network_is_refused(wrong, message, case):
    _, inputs, targets = cases.images()
    with pytest.raises(TypeError, match=f"^network must be an adapted network, net = mm.adapt\\(model\\), {message}"):
        cases.run(case.make(), wrong(), inputs, targets)


@pytest.mark.bad_input
def test_distributed_wrappers_are_known_by_name():
    """Without a process group none can be built; what tells them is their class alone."""
    for name in ("DistributedDataParallel", "FullyShardedDataParallel"):
        wrapper = type(name, (nn.Module,), {})()
        with pytest.raises(TypeError, match=f"got {name}; wrap a module of your own"):
            check_network(wrapper)


class Quiet(toy.Toy):
    """One that keeps no list of what it has seen, which torch 2.4 cannot compile."""

    def embed(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs.flatten(2).transpose(1, 2)


def _compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, backend="eager")


@pytest.mark.bad_input
@pytest.mark.parametrize("method", [MultiMix(), ManifoldMixup()], ids=lambda m: m.name)
def test_a_compiled_network_is_refused_where_its_forward_pass_would_not_run(method):
    network, inputs, targets = cases.images()
    with pytest.raises(TypeError, match=r"got OptimizedModule; .* net\.embed = torch\.compile\(net\.embed\)"):
        method(_compiled(network), inputs, targets)


@pytest.mark.compiles
@pytest.mark.parametrize("method", [ERM(), Mixup(), CutMix()], ids=lambda m: m.name)
def test_a_compiled_network_will_do_where_it_is_only_called(method):
    network, (inputs, targets) = Quiet(nn.Conv2d(3, 6, 3), width=6, classes=5), toy.batch(7, 3, 6, 6)
    plain = cases.run(method, network, inputs, targets).total
    torch.testing.assert_close(cases.run(method, _compiled(network), inputs, targets).total, plain)


@pytest.mark.bad_input
def test_manifold_mixup_wants_stages_as_well():
    class Bare(nn.Module):
        head = None

        def forward(self, inputs):
            return inputs

        embed = pool = classify = forward

    with pytest.raises(TypeError, match="got Bare, which has no mixing_at, stages"):
        ManifoldMixup()(Bare(), *toy.batch(4, 5))


@pytest.mark.bad_input
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_a_seed_is_no_generator(case):
    network, inputs, targets = cases.images()
    with pytest.raises(
        TypeError, match=r"^generator must be a torch.Generator or None, got 7; take .*manual_seed\(7\)"
    ):
        case.make()(network, inputs, targets, generator=7)


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", [cls for cls in METHODS if hasattr(cls, "mix")], ids=lambda cls: cls.name)
def test_a_seed_is_no_generator_of_mixed_data_either(cls):
    network, inputs, targets = cases.images()
    with pytest.raises(TypeError, match=r"^generator must be a torch.Generator or None, got 7"):
        cls().mix(inputs, targets, num_classes=5, network=network, generator=7)
