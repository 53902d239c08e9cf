"""The attention that an adapted vision transformer is asked for, against the matrix that its last block computes."""

import copy

import pytest
import torch

import multimix as mm

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

SIZES = {"num_classes": 5, "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CONFIG = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONFIG |= {"image_size": 32, "patch_size": 8, "num_labels": 5}
TIMM = {  # name of the model, settings, its last attention, tokens in front
    "vit": ("vit_tiny_patch16_224", {}, "blocks.1.attn", 1),
    "wide": ("vit_tiny_patch16_224", {"img_size": (16, 48)}, "blocks.1.attn", 1),
    "registers": ("vit_small_patch14_reg4_dinov2", {}, "blocks.1.attn", 5),
    "deit": ("deit3_small_patch16_224", {}, "blocks.1.attn", 1),
    "bias": ("beit_base_patch16_224", {"global_pool": "token"}, "blocks.1.attn", 1),
    "class attention": ("cait_xxs24_224", {}, "blocks_token_only.1.attn", 1),
}
TRANSFORMERS = {
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig, {}, 1),
    "distilled": (transformers.DeiTForImageClassification, transformers.DeiTConfig, {}, 2),
    "registers": (
        transformers.Dinov2WithRegistersForImageClassification,
        transformers.Dinov2WithRegistersConfig,
        {"num_register_tokens": 3},
        4,
    ),
}


def of_timm(name, **settings):
    torch.manual_seed(0)
    model = timm.create_model(TIMM[name][0], **SIZES | TIMM[name][1] | settings).eval()
    sides = TIMM[name][1].get("img_size", (32, 32))
    return model, torch.randn(3, 3, *sides)


def of_transformers(name, implementation):
    torch.manual_seed(0)
    classifier, config, settings, _ = TRANSFORMERS[name]
    model = classifier(config(**CONFIG, **settings, attn_implementation=implementation))
    return model.eval(), torch.randn(3, 3, 32, 32)


def hooks(net):
    return [len(kind) for module in net.modules() for kind in (module._forward_hooks, module._forward_pre_hooks)]


def check(net, images, matrix, front):
    """Both maps are rows of the matrix (b, heads, queries, keys), and what is embedded stays as it is."""
    class_rows, patch_rows = matrix[:, :, 0], matrix[:, :, front:] if matrix.shape[2] > 1 else matrix
    plain, grid, before = net.embed(images).features, (images.shape[2] // 8, images.shape[3] // 8), hooks(net)
    for by, truth in (("class", class_rows.mean(1)), ("patches", patch_rows.mean((1, 2)))):
        output, attention = net.attention_of(images, by)
        assert attention.shape == (len(images), *grid)
        assert not attention.requires_grad
        torch.testing.assert_close(attention.flatten(1), truth[:, front:].detach())
        assert torch.equal(output.features, plain)
    assert hooks(net) == before


@pytest.mark.parametrize("name", TIMM)
def test_it_is_what_the_last_block_of_a_timm_model_computes(name):
    model, images = of_timm(name)
    *_, attention, front = TIMM[name]
    twin, matrices = copy.deepcopy(model), []
    last = twin.get_submodule(attention)
    last.fused_attn = False
    last.attn_drop.register_forward_pre_hook(lambda _, given: matrices.append(given[0]))
    twin(images)
    check(mm.adapt(model), images, matrices[0], front)
    slow = mm.adapt(copy.deepcopy(model))
    slow.model.get_submodule(attention).fused_attn = False
    check(slow, images, matrices[0], front)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_it_is_what_a_model_of_transformers_returns(name):
    front = TRANSFORMERS[name][-1]
    model, images = of_transformers(name, "eager")
    matrix = model(images, output_attentions=True).attentions[-1]
    check(mm.adapt(model), images, matrix, front)
    check(mm.adapt(of_transformers(name, "sdpa")[0]), images, matrix, front)


def test_training_goes_on_as_without_it():
    model, images = of_timm("vit", drop_rate=0.2, drop_path_rate=0.2)
    gradients = []
    for asks in (False, True):
        net = copy.deepcopy(mm.adapt(model)).train()
        net.model.set_grad_checkpointing(asks)
        net(images)
        torch.manual_seed(1)
        output = net.attention_of(images)[0] if asks else net.embed(images)
        net.classify(net.pool(output)).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(*gradients)


def test_half_precision_is_read_in_single():
    model, images = of_timm("vit")
    net = mm.adapt(model)
    truth = net.attention_of(images)[1]
    with torch.autocast("cpu", torch.bfloat16):
        attention = net.attention_of(images)[1]
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention, truth, rtol=0.02, atol=0)


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:::torch")
@pytest.mark.parametrize("part", ["embed", "blocks"])
def test_compiled_parts_are_watched(part):
    model, images = of_timm("vit")
    truth = mm.adapt(model).attention_of(images)[1]
    if part == "blocks":
        model.blocks = torch.compile(model.blocks, backend="eager")
    net = mm.adapt(model)
    if part == "embed":
        net(images)
        net.embed = torch.compile(net.embed, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(net.attention_of(images)[1], truth)


NO_TOKEN = "has no class token that its head reads"
REFUSED = {
    "average": (lambda: of_timm("vit", global_pool="avg")[0], NO_TOKEN, None),
    "registers alone": (lambda: of_timm("vit", class_token=False, reg_tokens=2, global_pool="avg")[0], NO_TOKEN, None),
    "convolutions": (
        lambda: timm.create_model("test_resnet", num_classes=5),
        NO_TOKEN,
        "ends in no attention over all",
    ),
    "windows": (lambda: timm.create_model("swin_tiny_patch4_window7_224", **WINDOWS), NO_TOKEN, "ends in no attention"),
    "clip": (lambda: transformers.CLIPForImageClassification(CLIP), NO_TOKEN, None),
}
WINDOWS = {"num_classes": 5, "img_size": 32, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2}
CLIP = transformers.CLIPConfig(vision_config=CONFIG, num_labels=5)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", REFUSED)
def test_other_networks_are_refused_by_one_line(name):
    make, by_class, by_patches = REFUSED[name]
    net, images = mm.adapt(make().eval()), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match=f"^network: {type(net.model).__name__} {by_class}"):
        net.attention_of(images)
    assert by_class in net.missing["attention"]
    if by_patches is None:
        assert net.attention_of(images, "patches")[1].shape == (2, 4, 4)
    else:
        with pytest.raises(ValueError, match=by_patches):
            net.attention_of(images, "patches")
