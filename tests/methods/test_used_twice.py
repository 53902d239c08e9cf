"""Methods that learn, used once more: with a second network they begin anew or refuse; copies go their own ways."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn

import cases
import toy
from multimix.distill import EMATeacher, SelfDistilled
from multimix.integrations._training import TrainingMethod
from multimix.methods import AdaMixUp, Alternate, AutoMix, Mixup, MultiMix, StyleCutMix, Until
from multimix.protocols import stateful

MAKES = {
    "distilled": lambda: SelfDistilled(MultiMix(20), momentum=0.5, warmup=False),
    "automix": lambda: AutoMix(width=4),
    "adamixup": AdaMixUp,
    "distilled automix": lambda: SelfDistilled(AutoMix(width=4), momentum=0.5),
    "automix for a while": lambda: Until(AutoMix(width=4), 0.5),
}
LEARNERS = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
REFUSED = r"^network must be the one that this \w+ has learned with, got another Toy: method\.prepare\(network\) begins"


def train(method, network, steps, *, alone=False):
    """Return the losses of some steps, of the network and what the method learns, or of the network alone."""
    _, *batch = cases.images()
    optimiser = torch.optim.SGD([*network.parameters(), *(() if alone else method.parameters())], lr=0.01)
    totals = []
    for step in steps:
        optimiser.zero_grad()
        totals.append(cases.run(method, network, *batch, step).total)
        totals[-1].backward()
        optimiser.step()
    return totals


def learned(make):
    """Return a method that has learned for two steps, and its network."""
    network, method = toy.images(), make()
    method.prepare(network)
    train(method, network, range(2))
    return method, network


@LEARNERS
@pytest.mark.parametrize("first_is_gone", [False, True])
def test_a_second_network_is_refused_until_the_method_begins_anew(make, first_is_gone):
    method, first = learned(make)
    if first_is_gone:
        del first
        gc.collect()
    _, *batch = cases.images()
    second = toy.images(seed=3)
    with pytest.raises(ValueError, match=REFUSED):
        cases.run(method, second, *batch)
    method.prepare(second)
    fresh = make()
    for one in (method, fresh):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            one.prepare(toy.images(seed=4))  # what is built anew is drawn anew
            one.prepare(second)
    assert method.state_dict().keys() == fresh.state_dict().keys()
    assert all(map(torch.equal, method.state_dict().values(), fresh.state_dict().values()))
    totals = [cases.run(one, second.eval(), *batch).total for one in (method, fresh)]
    assert torch.equal(*totals)


def test_a_teacher_follows_by_itself_again_whoever_led_it_before():
    method, first = learned(MAKES["distilled"])
    method.after_step(first)
    second = toy.images()
    method.prepare(second)
    train(method, second, range(3))
    assert method.ema.updates == 2


def test_a_loop_that_forgets_the_modules_is_told_again():
    method, _ = learned(MAKES["automix"])
    second = toy.images()
    method.prepare(second)
    with pytest.warns(UserWarning, match="AutoMix learns nothing"):
        train(method, second, range(8), alone=True)


@LEARNERS
def test_a_host_begins_anew_with_a_method_that_was_used(make):
    method, _ = learned(make)
    second = toy.images(seed=3)
    states = []
    for given in (method, make()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            states.append(
                [value for part in TrainingMethod(given, second).learners for value in part.state_dict().values()]
            )
    assert all(map(torch.equal, *states))


@LEARNERS
def test_a_pickle_goes_on_as_if_nothing_had_happened(make):
    kept = learned(make)
    pickled = pickle.loads(pickle.dumps(kept))  # noqa: S301 (what this test itself has written)
    totals = [train(*pair, range(2, 5)) for pair in (kept, pickled, copy.deepcopy(kept))]
    assert totals[0] == totals[1] == totals[2]


@LEARNERS
def test_a_copy_goes_on_with_one_copy_of_the_network(make):
    method, network = learned(make)
    twin, other = copy.deepcopy(method), copy.deepcopy(network)
    _, *batch = cases.images()
    assert torch.equal(cases.run(twin, other, *batch, 5).total, cases.run(method, network, *batch, 5).total)
    with pytest.raises(ValueError, match=REFUSED):
        cases.run(twin, network, *batch)
    twin.pair(network)
    assert cases.run(twin, network, *batch).total.isfinite()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (MAKES["distilled"], "network must be of the kind that is averaged, got Toy with tensors of other shapes"),
        (AdaMixUp, "width must be the size of the network's pooled embedding, 9, for AdaMixUp, got 6"),
    ],
    ids=["distilled", "adamixup"],
)
def test_what_was_learned_with_another_kind_of_network_is_refused(make, message):
    method = pickle.loads(pickle.dumps(learned(make)[0]))  # noqa: S301 (what this test itself has written)
    wider = toy.Toy(nn.Conv2d(3, 9, 3, padding=1), width=9, classes=5)
    _, *batch = cases.images()
    with pytest.raises(ValueError, match=message):
        cases.run(method, wider, *batch)


class Counter(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.register_buffer("count", torch.zeros(size))


def test_an_average_takes_no_buffer_of_another_shape():
    """Which torch would stretch to fit."""
    average = EMATeacher(Counter(3))
    with pytest.raises(ValueError, match="network must be of the kind that is averaged, got Counter with tensors of"):
        average.update_(Counter(1))
    assert (average.updates, average.network.count.tolist()) == (0, [0, 0, 0])


def test_a_method_that_is_inside_twice_follows_once_a_step():
    inner = MAKES["distilled"]()
    network = toy.images()
    method = TrainingMethod(Alternate((inner, Until(inner, 0.5, Mixup()))), network)
    assert len(stateful(method.method)) == len(method.learners) == 2
    method.after_step()
    assert [int(part.ema.updates) for part in method.learners if isinstance(part, SelfDistilled)] == [1]


def test_styles_of_other_data_are_forgotten_with_their_network():
    network, images, targets = cases.images()
    method = StyleCutMix(prob=1.0, gamma="auto")
    method.prepare(network)
    cases.run(method, network, images, targets)
    method.prepare(network)
    assert len(method.styles.counts) > 0
    method.prepare(toy.images(seed=3))
    assert len(method.styles.counts) == 0


def test_until_begins_with_its_first_method_again():
    method = Until(MultiMix(20), 0.5, Mixup())
    method.at(1.0)
    method.prepare(network := toy.images())
    _, *batch = cases.images()
    assert torch.equal(cases.run(method, network, *batch).total, cases.run(MultiMix(20), network, *batch).total)


@LEARNERS
def test_what_was_learned_follows_the_network_to_its_device(make):
    method, network = learned(make)
    network.to("meta")
    for part in stateful(method):
        part.ready(network)
    assert {tensor.device.type for tensor in method.state_dict().values()} == {"meta"}
