"""Models that are wrapped, compiled or scripted: the line that refuses them says what works."""

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import multimix as mm
from models.unusual import IMAGES, LABELS, Body
from multimix.models import adapt

# torch's own, of what it traces
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")

METHOD = mm.MultiMix(tuples=10)


class Step(nn.Module):
    """What the advice asks for: its forward pass returns the loss."""

    def __init__(self, net, method=METHOD):
        super().__init__()
        self.net, self.method = net, method

    def forward(self, inputs, targets):
        return self.method(self.net, inputs, targets, generator=torch.Generator().manual_seed(0)).total


@contextmanager
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def plain(method=METHOD):
    """Return a model and the gradients of its first step."""
    torch.manual_seed(0)
    model = Body()
    alone = copy.deepcopy(model)
    Step(adapt(alone), method)(IMAGES, LABELS).backward()
    return model, [parameter.grad for parameter in alone.parameters()]


def test_the_advice_about_parallel_training_works():
    with one_process():
        model, expected = plain()
        for wrapper in (nn.DataParallel, nn.parallel.DistributedDataParallel):
            with pytest.raises(ValueError, match="in DistributedDataParallel whose forward returns") as caught:
                adapt(wrapper(copy.deepcopy(model)))
            assert str(caught.value).endswith("whose forward returns method(net, inputs, targets).total")
        step = nn.parallel.DistributedDataParallel(Step(adapt(model)))
        for _ in range(2):  # the first step compares; the second must be in order, too
            step.zero_grad()
            step(IMAGES, LABELS).backward()
        torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)


def test_the_advice_about_sharded_training_works():
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
        pytest.skip("this torch has no fully_shard that works on a CPU")
    with one_process():
        model, expected = plain()
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        with pytest.raises(ValueError, match="call fully_shard on a module whose forward returns method"):
            adapt(fsdp.fully_shard(copy.deepcopy(model), mesh=mesh))
        step = fsdp.fully_shard(Step(adapt(model)), mesh=mesh)
        step(IMAGES, LABELS).backward()
        torch.testing.assert_close([parameter.grad.full_tensor() for parameter in model.parameters()], expected)


@pytest.mark.compiles
def test_the_advice_about_compiling_works():
    model, expected = plain()
    with pytest.raises(ValueError, match=r"compile its parts, model.body = torch.compile\(model.body\), before or aft"):
        adapt(torch.compile(copy.deepcopy(model)))
    network, counter = adapt(model), CompileCounter()
    model.body = torch.compile(model.body, backend=counter)
    loss = METHOD(network, IMAGES, LABELS, generator=torch.Generator().manual_seed(0)).total
    loss.backward()
    assert counter.frame_count > 0
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)
    split = adapt(model, encoder="body", head="fc", stages=["body"])
    for method in (mm.DenseMultiMix(tuples=10), mm.ManifoldMixup(stages=(1,))):
        method(split, IMAGES, LABELS).total.backward()


@pytest.mark.filterwarnings("ignore:Graph break due to unsupported builtin:UserWarning")  # torch below 2.7, first batch
@pytest.mark.compiles
@pytest.mark.parametrize("names", [{}, {"head": "fc"}, {"encoder": "body", "head": "fc"}])
def test_embed_may_be_compiled(names):
    torch._dynamo.reset()
    model, expected = plain()
    network, counter = adapt(model, **names), CompileCounter()
    network.embed = torch.compile(network.embed, backend=counter)
    for _ in range(2):
        network.zero_grad()
        METHOD(network, IMAGES, LABELS, generator=torch.Generator().manual_seed(0)).total.backward()
    assert counter.frame_count > 0
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)
    assert network.head is model.fc


@pytest.mark.compiles
def test_a_compiled_head_is_still_an_affine_one():
    model, expected = plain()
    linear, counter = model.fc, CompileCounter()
    model.fc = torch.compile(linear, backend=counter)
    network = adapt(model)
    METHOD(network, IMAGES, LABELS, generator=torch.Generator().manual_seed(0)).total.backward()
    assert network.head is linear
    assert counter.frame_count > 0
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)


@pytest.mark.compiles
def test_a_compiled_head_that_is_a_convolution():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.Flatten())
    network = adapt(copy.deepcopy(model), head="2")
    model[2] = torch.compile(model[2], backend="eager")
    rows = torch.randn(2, 3, 4)
    torch.testing.assert_close(adapt(model, head="2").classify(rows), network.classify(rows))


@pytest.mark.filterwarnings("ignore:Graph break due to unsupported builtin:UserWarning")  # torch below 2.7, first batch
@pytest.mark.bad_input
def test_what_was_compiled_in_place():
    model = Body()
    model.compile(backend="eager")
    with pytest.raises(ValueError, match=r"compiled by its compile\(\): .* model.body = torch.compile\(model.body\)"):
        adapt(model)
    model = Body()
    model.body.compile(backend="eager")
    METHOD(adapt(model), IMAGES, LABELS).total.backward()
    with pytest.raises(ValueError, match=r"this Sequential was compiled in place, .* put torch.compile\(module\) in"):
        adapt(model, encoder="body", head="fc")(IMAGES)
    with pytest.raises(ValueError, match="this Sequential was compiled in place"):
        mm.ManifoldMixup(stages=(1,))(adapt(model, head="fc", stages=["body"]), IMAGES, LABELS)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.bad_input
def test_the_advice_about_scripts_works():
    model, expected = plain()
    with pytest.raises(ValueError, match="ScriptModule: it takes no hooks; adapt the module that it was scripted from"):
        adapt(torch.jit.script(model))
    Step(adapt(model))(IMAGES, LABELS).backward()
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)
    torch.testing.assert_close(torch.jit.script(model.eval())(IMAGES), model(IMAGES))
    model.body = torch.jit.script(model.body)
    Step(adapt(model))(IMAGES, LABELS).backward()
    with pytest.raises(ValueError, match="this module is a ScriptModule, which takes no hooks"):
        adapt(model, encoder="body", head="fc")(IMAGES)


@pytest.mark.compiles
def test_a_compiled_head_is_found_and_one_inside_a_compiled_part_is_not():
    method = mm.MultiMix(tuples=10, balanced=False)  # balance is of the embeddings where no head is known to be affine
    model, expected = plain(method)
    model.fc = torch.compile(model.fc, backend="eager")
    Step(adapt(model), method)(IMAGES, LABELS).backward()
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)
    whole = nn.Sequential(
        nn.Flatten(), torch.compile(nn.Sequential(nn.Linear(768, 5), nn.ReLU(), nn.Linear(5, 3)), backend="eager")
    )
    for names in ({}, {"head": "1._orig_mod.2"}):
        with pytest.raises(
            ValueError, match="no hook sees what is inside '1', which is compiled: compile what comes be"
        ):
            adapt(whole, **names)(IMAGES)


@pytest.mark.bad_input
def test_a_quantised_head_is_named():
    members = {"__module__": "torch.ao.nn.quantized.modules.linear", "forward": lambda self, x: x[:, :3]}
    with pytest.raises(ValueError, match="'fc' are quantised and take no gradient: adapt the model before that"):
        adapt(Body(type("Linear", (nn.Module,), members)()))(IMAGES)  # torch's own is on its way out


@pytest.mark.bad_input
def test_the_first_batch_inside_a_transform_finds_no_head_and_compares_nothing():
    model, net = plain()[0].eval(), None

    def loss(parameters):
        return torch.func.functional_call(Step(net), parameters, (IMAGES, LABELS))

    net = adapt(model)
    start = {name: parameter.detach() for name, parameter in Step(net).named_parameters()}
    with pytest.raises(ValueError, match=r"run one before compiling or torch.func, or pass head="):
        torch.func.grad(loss)(start)
    net = adapt(model, head="fc")
    gradients = torch.func.grad(loss)(start)
    Step(net)(IMAGES, LABELS).backward()
    for name, parameter in Step(net).named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
