"""A small model of every family of timm and torchvision, and images for them.

A family of timm is a module, proven by its smallest model, shrunk by what its builder lets one set. A family of
torchvision is a class that a builder returns. What follows a slash is a variant.
"""

import importlib
from functools import partial
from unittest.mock import patch

import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn
from torchvision import models as tv
from torchvision.models import convnext, densenet, efficientnet, maxvit, swin_transformer, vision_transformer

CLASSES = 7
MBConv = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
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
    "mobilenetv3": ("mobilenetv3_small_050", {}, 64),
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
    "resnet": ("test_resnet", {}, 32),
    "resnet/10t": ("resnet10t", {}, 40),
    "resnet/avgmax": ("test_resnet", {"global_pool": "avgmax"}, 64),
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
    "vision_transformer/attention": ("vit_tiny_patch16_224", VIT | {"global_pool": "map", "class_token": False}, 32),
    "vision_transformer/average": ("vit_tiny_patch16_224", VIT | {"global_pool": "avg"}, 32),
    "vision_transformer/bare": ("vit_tiny_patch16_224", VIT | {"global_pool": "avg", "class_token": False}, 32),
    "vision_transformer/registers": ("vit_tiny_patch16_224", VIT | {"global_pool": "avg", "reg_tokens": 3}, 32),
    "vision_transformer/token": ("vit_tiny_patch16_224", VIT, 32),
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
CNBlockConfig, EfficientNet = convnext.CNBlockConfig, efficientnet.EfficientNet
V2 = [efficientnet.FusedMBConvConfig(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 1)]
GOOGLENET = partial(tv.googlenet, aux_logits=False, init_weights=False)
SWIN = ([4, 4], 16, [2, 2], [2, 4], [4, 4])
SWIN_V2 = {"block": swin_transformer.SwinTransformerBlockV2, "downsample_layer": swin_transformer.PatchMergingV2}
TORCH_VIT = partial(vision_transformer.VisionTransformer, 32, 8, 2, 2, 24, 48)


def narrow(make, **settings):
    """A model with 16 features where its builder has 4096 in linear layers and lets nobody set it."""
    linear = nn.Linear
    with patch.object(nn, "Linear", lambda *sizes: linear(*(16 if size == 4096 else size for size in sizes))):
        return make(**settings)


TORCHVISION = {  # what makes it, settings, image size
    "AlexNet": (partial(narrow, tv.alexnet), {}, 64),
    "ConvNeXt": (partial(convnext.ConvNeXt, [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]), {}, 64),
    "DenseNet": (partial(densenet.DenseNet, 4, (1, 2, 1), 8), {}, 64),
    "EfficientNet": (partial(EfficientNet, [MBConv(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 2)], 0.2), {}, 64),
    "EfficientNet/v2": (partial(EfficientNet, V2, 0.2, last_channel=32), {}, 64),
    "GoogLeNet": (GOOGLENET, {}, 64),
    "GoogLeNet/transformed": (partial(GOOGLENET, transform_input=True), {}, 64),
    "Inception3": (partial(tv.inception_v3, aux_logits=False, init_weights=False), {}, 96),
    "MNASNet": (tv.mnasnet0_5, {}, 64),
    "MaxVit": (partial(maxvit.MaxVit, (64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0), {}, 64),
    "MobileNetV2": (partial(tv.mobilenet_v2, width_mult=0.25), {}, 64),
    "MobileNetV3": (partial(tv.mobilenet_v3_small, width_mult=0.5), {}, 64),
    "RegNet": (tv.regnet_y_400mf, {}, 64),
    "RegNet/x": (tv.regnet_x_400mf, {}, 64),
    "ResNet": (tv.resnet18, {}, 40),
    "ResNet/next": (partial(tv.ResNet, tv.resnet.Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=4), {}, 40),
    "ShuffleNetV2": (tv.shufflenet_v2_x0_5, {}, 64),
    "SwinTransformer": (partial(swin_transformer.SwinTransformer, *SWIN), {}, 64),
    "SwinTransformer/v2": (partial(swin_transformer.SwinTransformer, *SWIN, **SWIN_V2), {}, 64),
    "VGG": (partial(narrow, tv.vgg11_bn, init_weights=False), {}, 32),
    "VisionTransformer": (TORCH_VIT, {}, 32),
    "VisionTransformer/pre-logits": (partial(TORCH_VIT, representation_size=10), {}, 32),
}
USUAL = ["cait", "convnext", "deit", "densenet", "efficientnet", "mlp_mixer", "mobilenetv3", "regnet", "repvit"]
USUAL += ["resnetv2", "swin_transformer", "AlexNet", "ConvNeXt", "DenseNet", "EfficientNet", "MNASNet", "MaxVit"]
USUAL += ["MobileNetV2", "MobileNetV3", "RegNet", "ResNet", "ShuffleNetV2", "SwinTransformer", "VGG"]
USUAL += ["VisionTransformer", "VisionTransformer/pre-logits", "resnet", *(name for name in TIMM if "/" in name)]
SLOW = {"inception_resnet_v2", "inception_v4", "pnasnet", "selecsls", "xception"}


def create(family, factory, settings, size):
    """A model as it is created, and images for it."""
    torch.manual_seed(1)
    module = family.partition("/")[0]
    if not isinstance(factory, str):
        model = factory(num_classes=CLASSES, **settings)
        assert type(model).__name__ == module
    elif factory[0].isupper():  # the builders of this family let nobody set what they set
        builder = getattr(importlib.import_module(f"timm.models.{module}"), factory)
        model = builder(num_classes=CLASSES, **settings)
    else:
        assert factory in timm.list_models(module=module)
        model = timm.create_model(factory, num_classes=CLASSES, **settings)
    return model, nn.functional.interpolate(4 * torch.randn(3, 3, 4, 4), size=size, mode="bicubic")


@torch.no_grad()
def make(family):
    """A model and images for it, with nothing left at zero or unnormalised, which would hide what is left out."""
    model, images = create(family, *(TIMM | TORCHVISION)[family])
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.normal_(std=0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model, images
