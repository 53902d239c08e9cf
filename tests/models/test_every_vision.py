"""Every family of timm and every classifier of torchvision is split, or refused with what to do instead.

A family of timm is a module, proven by its smallest model, shrunk by what its builder lets one set. A family of
torchvision is a class that a builder returns; some have a second variant of other blocks.
"""

import importlib
from functools import partial
from typing import get_type_hints

import pytest
import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn
from torchvision import models as tv

from models.small_vision import CLASSES, TORCHVISION, settle
from multimix.methods import DenseMultiMix, MultiMix
from multimix.models import adapt

pytestmark = pytest.mark.sweep

ONES = (1, 1, 1, 1)
DIMS = (8, 16, 24, 32)
MOBILE = [
    ["er_r1_k3_s2_e2_c8"],
    ["uir_r1_a3_k5_s2_e2_c16"],
    ["uir_r1_a5_k5_s2_e2_c24"],
    ["mqa_r1_k3_h2_s2_d8_c24", "uir_r1_a0_k0_s1_e2_c24"],
]
XCEPTION = [{"in_chs": a, "out_chs": b, "stride": 2} for a, b in ((64, 16), (16, 24), (24, 32))]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
TIMM_SWIN = {"img_size": 64, "embed_dim": 12, "depths": ONES}
VOLO = {"img_size": 64, "layers": ONES, "embed_dims": (12, 24, 24, 24), "num_heads": (2,) * 4}
TWO_BLOCKS = {"embed_dim": 32, "depth": 2, "num_heads": 2}
GEMMA = {"img_size": 96, "head_dim": 16, "intermediate_size": 48, "position_embedding_size": 64} | TWO_BLOCKS
SAM = VIT | {"img_size": 64, "patch_size": 16, "neck_chans": 16, "global_attn_indexes": (1,), "window_size": 2}
RDNET = {"growth_rates": (8,) * 7, "num_blocks_list": (1,) * 7, "num_init_features": 16}
SEQUENCER = {"layers": ONES, "img_size": 56, "embed_dims": DIMS, "hidden_sizes": (4, 4, 4, 4)}
TNT = {"img_size": 32, "embed_dim": 24, "inner_dim": 8, "depth": 2, "num_heads_inner": 2, "num_heads_outer": 2}
VISFORMER = {"img_size": 64, "init_channels": 8, "embed_dim": 48, "depth": (1,) * 3, "num_heads": 2}
TIMM = {  # name of the model or its class, settings, image size
    "beit": ("beit_base_patch16_224", VIT, 32),
    "byoanet": ("eca_botnext26ts_256", {"img_size": 32}, 32),
    "byobnet": ("test_byobnet", {}, 32),
    "cait": ("cait_xxs24_224", {"img_size": 32, "depth": 2}, 32),
    "coat": ("coat_lite_tiny", {"img_size": 32, "serial_depths": ONES, "embed_dims": (64,) * 4}, 32),
    "convit": ("convit_tiny", VIT | {"depth": 3, "local_up_to_layer": 2}, 32),
    "convmixer": ("ConvMixer", {"dim": 16, "depth": 2, "patch_size": 7}, 32),
    "convnext": ("test_convnext", {}, 32),
    "cpubone": ("cpubone_nano", {}, 64),
    "csatv2": ("csatv2", {"depths": (1, 1, 1, 1), "transformer_depths": (0, 0, 1, 1)}, 64),
    "cspnet": ("cs3darknet_focus_s", {}, 64),
    "cspnext": ("cspnext_tiny", {}, 64),
    "davit": ("davit_tiny", {"depths": ONES, "embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 3, 4)}, 64),
    "deepseek_vit": ("deepseek_vit_412m", {"img_size": 84, "embed_dim": 32, "depth": 2, "num_heads": 2}, 84),
    "deit": ("deit3_small_patch16_224", VIT, 32),
    "densenet": ("densenet121", {"growth_rate": 4, "block_config": ONES}, 32),
    "dla": ("dla60x_c", {}, 64),
    "dpn": ("dpn68", {"k_sec": ONES}, 32),
    "edgenext": ("edgenext_xx_small", {}, 64),
    "efficientformer": ("efficientformer_l1", {"depths": ONES, "embed_dims": DIMS}, 224),
    "efficientformer_v2": ("efficientformerv2_s0", {"img_size": 64}, 64),
    "efficientnet": ("test_efficientnet", {}, 32),
    "efficientvit_mit": ("efficientvit_b0", {}, 64),
    "efficientvit_msra": ("efficientvit_m0", {"img_size": 64}, 64),
    "eva": ("eva02_tiny_patch14_224", VIT, 32),
    "fasternet": ("fasternet_t0", {"embed_dim": 16, "depths": ONES}, 64),
    "fastvit": ("fastvit_t8", {"layers": ONES, "embed_dims": (16, 32, 64, 128)}, 64),
    "focalnet": ("FocalNet", {"embed_dim": 16, "depths": ONES}, 64),
    "gcvit": ("GlobalContextVit", {"img_size": 64, "embed_dim": 16, "depths": (2,) * 4}, 64),
    "gemma4_vit": ("gemma4_vit_167m", GEMMA, 96),
    "ghostnet": ("ghostnet_050", {}, 32),
    "hardcorenas": ("hardcorenas_a", {}, 32),
    "hgnet": ("hgnetv2_b0", {}, 32),
    "hiera": ("hiera_tiny_224", {"img_size": 64, "embed_dim": 16, "stages": ONES}, 64),
    "hieradet_sam2": ("hieradet_small", {"embed_dim": 16, "stages": ONES, "window_spec": (8, 4, 2, 1)}, 64),
    "hrnet": ("hrnet_w18_small", {}, 64),
    "iformer": ("iformer_t", {}, 64),
    "inception_next": ("inception_next_atto", {}, 32),
    "inception_resnet_v2": ("inception_resnet_v2", {}, 96),
    "inception_v3": ("inception_v3", {}, 96),
    "inception_v4": ("inception_v4", {}, 96),
    "lcnetv2": ("lcnetv2_small", {}, 32),
    "levit": ("levit_128s", {"img_size": 64}, 64),
    "lowformer": ("lowformer_b0", {}, 64),
    "mambaout": ("test_mambaout", {}, 32),
    "maxxvit": ("test_coatnet", {"img_size": 64}, 64),
    "metaformer": ("MetaFormer", {"depths": ONES, "dims": DIMS, "use_mlp_head": False}, 64),
    "mlp_mixer": ("MlpMixer", {"img_size": 32, "num_blocks": 2, "embed_dim": 24}, 32),
    "mobilenetv3": ("lcnet_035", {}, 32),
    "mobilenetv5": ("MobileNetV5", {"block_args": decode_arch_def(MOBILE), "stem_size": 8, "num_features": 32}, 64),
    "mobilevit": ("mobilevit_xxs", {}, 64),
    "mvitv2": ("mvitv2_tiny", {"img_size": 64}, 64),
    "naflexvit": ("naflexvit_base_patch16_gap", {"embed_dim": 24, "depth": 2, "num_heads": 2}, 64),
    "nasnet": ("NASNetALarge", {"stem_size": 8, "num_features": 192}, 64),
    "nest": ("Nest", {"img_size": 64, "embed_dims": (8, 16, 32), "num_heads": (1, 2, 4), "depths": (1, 1, 1)}, 64),
    "nextvit": ("nextvit_small", {"stem_chs": (16, 8, 16), "depths": (1, 1, 5, 1)}, 32),
    "nfnet": ("test_nfnet", {}, 32),
    "pit": ("pit_ti_224", {"img_size": 64, "base_dims": (8, 8, 8), "depth": (1, 1, 1)}, 64),
    "pnasnet": ("pnasnet5large", {}, 64),
    "pvt_v2": ("pvt_v2_b0", {"depths": ONES}, 32),
    "qwen3_vit": ("qwen3_vit_88m", TWO_BLOCKS | {"img_size": 64, "pos_embed_grid_size": 4}, 64),
    "rdnet": ("rdnet_tiny", RDNET, 64),
    "regnet": ("regnetx_002", {}, 32),
    "repghost": ("repghostnet_050", {}, 32),
    "repvit": ("repvit_m0_9", {"embed_dim": DIMS, "depth": ONES}, 32),
    "res2net": ("res2net50_14w_8s", {"layers": ONES, "channels": (16, 32, 48, 64)}, 32),
    "resnest": ("resnest14d", {}, 32),
    "resnet": ("test_resnet", {}, 40),
    "resnetv2": ("resnetv2_18", {"layers": ONES, "channels": DIMS}, 32),
    "rexnet": ("rexnet_100", {"width_mult": 0.25}, 32),
    "selecsls": ("selecsls42", {}, 32),
    "senet": ("legacy_seresnet18", {}, 32),
    "sequencer": ("sequencer2d_s", SEQUENCER, 56),
    "shvit": ("shvit_s1", {}, 64),
    "sknet": ("skresnet18", {"layers": ONES}, 32),
    "starnet": ("starnet_s050", {}, 32),
    "swiftformer": ("swiftformer_xs", {"layers": ONES, "embed_dims": DIMS}, 64),
    "swin_transformer": ("swin_tiny_patch4_window7_224", TIMM_SWIN, 64),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", TIMM_SWIN, 64),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", TIMM_SWIN | {"window_size": 2}, 64),
    "tiny_vit": ("tiny_vit_5m_224", {"embed_dims": (8, 16, 32, 64), "num_heads": (1, 1, 2, 4), "depths": ONES}, 64),
    "tnt": ("tnt_s_patch16_224", TNT, 32),
    "tresnet": ("tresnet_m", {"layers": ONES}, 64),
    "twins": ("twins_svt_small", {"img_size": 64, "embed_dims": DIMS, "depths": ONES}, 64),
    "vgg": ("vgg11", {"mlp_ratio": 0.02}, 32),
    "visformer": ("visformer_tiny", VISFORMER, 64),
    "vision_transformer": ("test_vit", {"img_size": 32}, 32),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {"img_size": 64, "depth": 2}, 64),
    "vision_transformer_relpos": ("test_vit_relpos", {"img_size": 32}, 32),
    "vision_transformer_sam": ("samvit_base_patch16_224", SAM, 64),
    "vitamin": ("vitamin_small_224", {"img_size": 64, "depth": 2}, 64),
    "volo": ("VOLO", VOLO | {"use_aux_head": False}, 64),
    "vovnet": ("ese_vovnet19b_slim_dw", {}, 32),
    "xception": ("legacy_xception", {}, 32),
    "xception_aligned": ("XceptionAligned", {"block_cfg": XCEPTION}, 64),
    "xcit": ("xcit_nano_12_p16_224", {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}, 32),
}

REFUSED_OF_TIMM = {  # name, settings, image size, what the error says
    "crossvit": ("crossvit_tiny_240", {}, 240, "CrossVit combines several classifiers"),
    "efficientvim": ("efficientvim_m1", {}, 64, "EfficientViM combines several classifiers"),
    "volo/auxiliary": ("VOLO", VOLO, 64, "VOLO adds the maximum of auxiliary logits .* use_aux_head=False"),
    "deit/distilled": (
        "deit_tiny_distilled_patch16_224",
        VIT,
        32,
        "Distilled combines several classifiers, .* without",
    ),
}
AUXILIARY = r"has auxiliary classifiers; adapt\(model, head='fc'\) trains its main one"
REFUSED_OF_TORCHVISION = {  # what makes it, image size, what the error says
    "SqueezeNet": (tv.squeezenet1_1, 64, "SqueezeNet ends in a convolution and a ReLU, not in a linear layer"),
    "GoogLeNet/auxiliary": (partial(tv.googlenet, init_weights=False), 64, f"GoogLeNet {AUXILIARY}"),
    "Inception3/auxiliary": (partial(tv.inception_v3, init_weights=False), 96, f"Inception3 {AUXILIARY}"),
}
NO_AFFINE_HEAD = {"efficientformer", "efficientformer_v2", "levit", "swiftformer"}  # the mean of two classifiers
NO_AFFINE_HEAD |= {"cpubone", "iformer", "levit", "repvit"}  # a norm before the last layer belongs to the classifier
ONLY_INPUTS = {"twins"}  # its blocks are lists in a list
SLOW = {"inception_resnet_v2", "inception_v4", "pnasnet", "selecsls", "xception", "AlexNet", "VGG"}
FAMILIES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in (*TIMM, *TORCHVISION)]


def make(family):
    torch.manual_seed(1)
    module = family.partition("/")[0]
    if family in TORCHVISION or family in REFUSED_OF_TORCHVISION:
        factory, size = (TORCHVISION.get(family) or REFUSED_OF_TORCHVISION[family])[:2]
        model = factory(num_classes=CLASSES)
        assert type(model).__name__ == module
        return model, torch.randn(4, 3, size, size)
    name, settings, size = (TIMM.get(family) or REFUSED_OF_TIMM[family])[:3]
    if name[0].isupper():  # the builders of this family let nobody set what they set
        builder = getattr(importlib.import_module(f"timm.models.{module}"), name)
        model = builder(num_classes=CLASSES, **settings)
    else:
        assert name in timm.list_models(module=module)
        model = timm.create_model(name, num_classes=CLASSES, **settings)
    return model, torch.randn(4, 3, size, size)


def test_the_tables_have_every_family():
    assert not TIMM.keys() & REFUSED_OF_TIMM.keys()
    # a key with a slash is a variant that is refused, of a family that is not
    assert TIMM.keys() | {key for key in REFUSED_OF_TIMM if "/" not in key} == set(timm.list_modules())
    names = tv.list_models(module=tv)
    assert len(names) > 70
    returned = {name: get_type_hints(tv.get_model_builder(name))["return"] for name in names}
    known = {key.partition("/")[0] for key in TORCHVISION | REFUSED_OF_TORCHVISION}
    assert {cls.__name__ for cls in returned.values()} == known
    for name, cls in returned.items():
        assert tv.get_model_builder(name).__module__ == cls.__module__, name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_split(family):
    model, images = make(family)
    assert family in TORCHVISION or sum(parameter.numel() for parameter in model.parameters()) < 1e8
    settle(model, images)
    network = adapt(model).eval()
    with torch.no_grad():
        plain = model(images)
        gap = plain.std(0).max().item()
        torch.testing.assert_close(network(images), plain, rtol=1e-4, atol=1e-4 * min(gap, 1))
        assert (len(network.stages) > 1) is (family not in ONLY_INPUTS)
        for stage in {1, len(network.stages) // 2, len(network.stages) - 1} & set(network.stages):
            with network.mixing_at(stage, lambda x: x.flip(0)):
                mixed = network(images)
            torch.testing.assert_close(mixed, plain.flip(0), rtol=0, atol=0.02 * gap, msg=f"stage {stage}")
    assert gap > 1e-4
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m.weight.shape[0] == CLASSES]
    assert network.head is (None if family in NO_AFFINE_HEAD else layers[-1])
    for method in (MultiMix(tuples=20), DenseMultiMix(tuples=5)):
        assert_learns(network.train(), method, images)


def assert_learns(network, method, images):
    network.zero_grad()
    losses = method(network, images, torch.tensor([0, 1, 2, 6]), generator=torch.Generator().manual_seed(0))
    losses.total.backward()
    assert losses.total.isfinite()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    first = next(name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    assert gradients[f"{first}.weight"].abs().max() > 0


@pytest.mark.parametrize("family", [*REFUSED_OF_TIMM, *REFUSED_OF_TORCHVISION])
def test_a_family_that_cannot_be_split_is_refused(family):
    model, images = make(family)
    assert model.eval()(images).shape == (4, CLASSES)
    with pytest.raises(ValueError, match=(REFUSED_OF_TIMM | REFUSED_OF_TORCHVISION)[family][-1]):
        adapt(model)
