"""What every method must do, whatever it mixes: a law takes a case and a device and asserts."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import toy
from cases import Case, close, hooks, images, pickled, run, step
from multimix.distill import SelfDistilled
from multimix.methods import METHODS, Until
from multimix.methods.multimix import TupleMethod
from multimix.ops import CrossEntropy
from multimix.protocols import Losses

NEVER_PLAIN = {"automix", "adamixup", "stylemix", "stylecutmix", "co-mixup", "supermix", "guidedmixup", "smoothmix"}
NEVER_PLAIN |= {"smmix"}
"""Methods whose loss has more in it than the mixed examples, or which always mix: none of them is plain training."""


def same_state_gives_the_same_step(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    first = step(case.make(), copy.deepcopy(network), inputs, targets)
    second = step(case.make(), copy.deepcopy(network), inputs, targets)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*pair) for pair in zip(first[1], second[1], strict=True))


def another_state_gives_another_loss(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    network.eval()
    totals = (run(case.make(), network, inputs, targets, seed).total for seed in range(4))
    first = next(totals)
    assert any(other != first for other in totals) == case.random


def arguments_are_left_alone(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    soft = toy.one_hot(targets)
    before = [t.clone() for t in (inputs, targets, soft)]
    parameters = [p.detach().clone() for p in network.parameters()]
    versions = [t._version for t in (inputs, targets, soft)]
    for labels in (targets, soft):
        run(case.make(), network, inputs, labels).total.backward()
    assert all(torch.equal(*pair) for pair in zip(before, (inputs, targets, soft), strict=True))
    assert [t._version for t in (inputs, targets, soft)] == versions
    assert all(torch.equal(*pair) for pair in zip(parameters, network.parameters(), strict=True))
    assert network.training


def global_randomness_is_spared_given_a_generator(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    before = torch.get_rng_state()
    run(case.make(), network, inputs, targets)
    assert torch.equal(torch.get_rng_state(), before)


def global_randomness_serves_without_a_generator(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    network.eval()
    totals = []
    for _ in range(2):
        torch.manual_seed(11)
        totals.append(case.make()(network, inputs, targets).total)
    assert torch.equal(*totals)


def total_is_a_finite_scalar(case: Case, device: torch.device) -> None:
    losses = run(case.make(), *images(device=device))
    assert losses.total.shape == ()
    assert losses.total.requires_grad
    assert losses.total.isfinite()
    assert losses.total.device.type == device.type
    assert losses.terms
    for term in losses.terms.values():
        assert term.shape == ()
        assert not term.requires_grad
        assert term.isfinite()


def every_parameter_gets_a_gradient(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    run(case.make(), network, inputs, targets).total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def inputs_get_a_gradient(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    inputs.requires_grad_()
    run(case.make(), network, inputs, targets).total.backward()
    assert inputs.grad.isfinite().all()
    assert inputs.grad.abs().sum() > 0


def without_mixing_it_is_plain_training(case: Case, device: torch.device) -> None:
    """Lambda = 1 and one-hot weights, on images of a single pixel, where a dense method has a single position."""
    network = toy.images(kernel=1).to(device).eval()
    inputs, targets = toy.batch(7, 3, 1, 1, device=device)
    method = dataclasses.replace(case.make(), balanced=False) if case.balanced else case.make()
    with unmixed(device):
        ours = step(method, network, inputs, targets)
    network.zero_grad()
    logits = network(inputs)
    total = nn.functional.cross_entropy(logits, targets)
    if isinstance(method, SelfDistilled):
        total = 0.3 * total + 0.7 * nn.functional.cross_entropy(logits, logits.detach().softmax(-1))
    total.backward()
    close(ours, (total.detach(), [p.grad for p in network.parameters()]))


@contextmanager
def unmixed(device: torch.device | str = "cpu") -> Iterator[None]:
    """Let every method draw lambda = 1 and tuples of one example, each example as often."""
    with pytest.MonkeyPatch.context() as patch:
        for module in {cls.__module__ for cls in METHODS}:
            patch.setattr(f"{module}.beta", lambda n, alpha, **_: torch.ones(n, device=device), raising=False)
        patch.setattr(TupleMethod, "draw_weights", _one_hot_weights)
        patch.setattr("multimix.methods.mixup.zeta_weights", lambda b, *_, **__: torch.eye(b, device=device))
        yield


def _one_hot_weights(
    self: TupleMethod, b: int, rows: int | None = None, *, like: Tensor, generator: Any = None
) -> Tensor:
    return torch.eye(b, device=like.device)[torch.arange(rows or self.tuples) % b]


def mixed_targets_stay_on_the_simplex(case: Case, device: torch.device) -> None:
    """Seen where every method without an affine head ends, in full precision and under autocast."""
    for dtype in (None, torch.bfloat16):
        network, inputs, targets = images(device=device, affine=False)
        for labels in (targets, toy.soft_targets(7, 5).to(device)):
            seen: list[Tensor] = []
            with pytest.MonkeyPatch.context() as patch:
                _record_targets(patch, seen)
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    run(case.make(), network, inputs, labels)
            assert seen
            for mixed in seen:
                assert mixed.min() >= 0
                sums = mixed.double().sum(-1)
                torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)


def _record_targets(patch: pytest.MonkeyPatch, seen: list[Tensor]) -> None:
    original = CrossEntropy.losses

    def recording(self: CrossEntropy, outputs: Tensor, targets: Tensor, *others: Any, **options: Any) -> Losses:
        seen.append(targets.detach())
        return original(self, outputs, targets, *others, **options)

    patch.setattr(CrossEntropy, "losses", recording)


def hard_labels_are_one_hot_probabilities(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    hard = step(case.make(), copy.deepcopy(network), inputs, targets)
    for rows in (toy.one_hot(targets), nn.functional.one_hot(targets, 5)):
        close(hard, step(case.make(), copy.deepcopy(network), inputs, rows))


def classes_have_no_order(case: Case, device: torch.device) -> None:
    """Renaming the classes changes nothing, if the head's rows are renamed with them."""
    network, inputs, targets = images(device=device)
    renamed, names = copy.deepcopy(network), torch.tensor([3, 0, 4, 1, 2], device=device)
    with torch.no_grad():
        renamed.classifier.weight[names] = network.classifier.weight
        renamed.classifier.bias[names] = network.classifier.bias
    ours, theirs = (run(case.make(), n, inputs, t).total for n, t in ((network, targets), (renamed, names[targets])))
    torch.testing.assert_close(ours, theirs)


def any_mini_batch_will_do(case: Case, device: torch.device) -> None:
    for b in (1, 2, 13):
        network, inputs, targets = images(b, device=device)
        total, gradients = step(case.make(), network, inputs, targets)
        assert total.isfinite(), b
        assert all(gradient.isfinite().all() for gradient in gradients), b


def autocast_stays_close(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    total = run(case.make(), copy.deepcopy(network), inputs, targets).total
    with torch.autocast(device.type, torch.bfloat16):
        cast = run(case.make(), network, inputs, targets).total
    cast.backward()
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, total, rtol=0.03, atol=0)
    assert all(p.grad.isfinite().all() for p in network.parameters())


def double_precision_is_kept(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    single = run(case.make(), copy.deepcopy(network), inputs, targets).total
    double = run(case.make(), network.double(), inputs.double(), targets).total
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)


def memory_format_does_not_matter(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    total = run(case.make(), copy.deepcopy(network), inputs, targets).total
    last = run(case.make(), network, inputs.contiguous(memory_format=torch.channels_last), targets).total
    torch.testing.assert_close(last, total, rtol=1e-4, atol=1e-6)


def no_hook_is_left_behind(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    method = case.make()
    before = hooks(method, network)
    run(method, network, inputs, targets)
    assert hooks(method, network) == before


def no_hook_is_left_behind_by_a_failure(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    method = case.make()

    def fail(embeddings: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    network.classify = fail
    for seed in range(3):
        with pytest.raises(RuntimeError, match="on purpose"):
            run(method, network, inputs, targets, seed)
    assert hooks(method, network) == 0


def an_affine_head_may_be_unknown(case: Case, device: torch.device) -> None:
    known, unknown = (images(device=device, affine=affine) for affine in (True, False))
    close(step(case.make(), *known), step(case.make(), *unknown))


def feature_vectors_will_do(case: Case, device: torch.device) -> None:
    network = toy.vectors().to(device)
    for b in (1, 7):
        total, gradients = step(case.make(), network, *toy.batch(b, 8, device=device))
        assert total.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


def copies_are_as_good(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    network.eval()
    for used in (False, True):
        original = case.make()
        if used:
            run(original, network, inputs, targets)
        ways = {
            "deepcopy": copy.deepcopy,
            "pickle": pickled,
            "replace": dataclasses.replace,
            "fields": lambda m: type(m)(**{f.name: getattr(m, f.name) for f in dataclasses.fields(m)}),
        }
        expected = run(original, network, inputs, targets).total
        for name, way in ways.items():
            twin = way(original)
            if isinstance(twin, Until):
                twin._gives_way = original._gives_way
            assert torch.equal(run(twin, network, inputs, targets).total, expected), (name, used)
            assert repr(twin) == repr(original)


def a_look_without_gradient_is_allowed(case: Case, device: torch.device) -> None:
    """As for pictures of what a method does."""
    network, inputs, targets = images(device=device)
    with torch.no_grad():
        assert run(case.make(), network, inputs, targets).total.isfinite()


LAWS = [
    a_look_without_gradient_is_allowed,
    same_state_gives_the_same_step,
    another_state_gives_another_loss,
    arguments_are_left_alone,
    global_randomness_is_spared_given_a_generator,
    global_randomness_serves_without_a_generator,
    total_is_a_finite_scalar,
    every_parameter_gets_a_gradient,
    inputs_get_a_gradient,
    without_mixing_it_is_plain_training,
    mixed_targets_stay_on_the_simplex,
    hard_labels_are_one_hot_probabilities,
    classes_have_no_order,
    any_mini_batch_will_do,
    autocast_stays_close,
    double_precision_is_kept,
    memory_format_does_not_matter,
    no_hook_is_left_behind,
    no_hook_is_left_behind_by_a_failure,
    an_affine_head_may_be_unknown,
    feature_vectors_will_do,
    copies_are_as_good,
]


def applies(law: Callable[[Case, torch.device], None], case: Case) -> bool:
    """Say whether a law is meant for a case."""
    if law is feature_vectors_will_do:
        return case.vectors
    if law is another_state_gives_another_loss and case.name in ("co-mixup", "guidedmixup"):
        return False  # for the first each output is a whole image, as the toy network looks at all pixels alike
    if law is copies_are_as_good and case.name == "recursivemix":
        return False  # each step changes what the next one pastes, of which a new one knows nothing
    if law is without_mixing_it_is_plain_training:
        return case.name not in NEVER_PLAIN
    return not (case.balanced and law is an_affine_head_may_be_unknown)
