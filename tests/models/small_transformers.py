"""Small models of transformers of every family, batches for them, and what is left on them."""

import contextlib
import warnings

import numpy as np
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of whatever transformers imports
    import transformers
    from transformers.models.auto import configuration_auto, modeling_auto

transformers.logging.set_verbosity_error()

CLASSES, B, LENGTH, PADDING, END = 5, 4, 12, 0, 1
SIZES = {  # what configurations call these, whichever of them a family has
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "pooler_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_attention_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "d_inner", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "output_hidden_size", "entity_emb_size"), 32),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "classifier_proj_size", "embed_dim", "moe_intermediate_size"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "entity_vocab_size"), 120),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 2),
    **dict.fromkeys(("num_experts_per_tok", "n_shared_experts", "squeeze_factor"), 1),
    **dict.fromkeys(("max_length", "image_size"), 32),
    **dict.fromkeys(("num_mel_bins", "max_source_positions", "feature_projection_input_dim"), 16),
    **{"patch_size": 8, "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3)},
    **{"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
    **{"num_labels": CLASSES, "pad_token_id": PADDING, "eos_token_id": END, "bos_token_id": 2},
}
_SPEECH = {"feat_extract_norm": "layer", "mask_time_length": 4}
_FOUR = {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "num_attention_heads": [1] * 4}
_SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 4}
_STAGED = {"hidden_sizes": (8, 16), "depths": (1, 1)}
_LATENT = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "q_lora_rank": 16, "kv_lora_rank": 16}
_MIXED = {"num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 2}
OWN = {  # what the sizes above leave wrong
    "bit": _STAGED | {"embedding_size": 8, "num_groups": 4},
    "convnext": {"num_stages": 2, "patch_size": 4, "layer_scale_init_value": 0.5} | _STAGED,
    "convnextv2": {"num_stages": 2, "patch_size": 4} | _STAGED,
    "ctrl": {"dff": 32},
    "deepseek_v2": _LATENT | {"num_experts_per_tok": 1, "n_routed_experts": 2, "n_group": 1, "head_dim": 8},
    "deepseek_v3": _LATENT | {"n_group": 1, "topk_group": 1, "head_dim": 8},
    "donut-swin": _SWIN,
    "efficientnet": {"width_coefficient": 0.3, "depth_coefficient": 0.3, "image_size": 64, "hidden_dim": 384},
    "esm": {"mask_token_id": 3},
    "gptj": {"rotary_dim": 4},
    "jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "moe_topk": 1},
    "lilt": {"hidden_size": 48},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "roc_bert": {"pronunciation_vocab_size": 120, "shape_vocab_size": 120},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "input_size": 32},
    "minicpm3": _LATENT | {"head_dim": 8},
    "mobilevitv2": {"patch_size": 2, "image_size": 64, "width_multiplier": 0.25},
    "poolformer": {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4},
    "pvt": _FOUR | {"image_size": 64},
    "pvt_v2": _FOUR | {"image_size": 64},
    "qwen3_next": _MIXED,
    "qwen3_5_text": _MIXED,
    "reformer": {
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (4, 3),
        "attn_layers": ("local", "lsh"),
        "attention_head_size": 16,
        "feed_forward_size": 32,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "hash_seed": 0,
    },
    "regnet": {"embedding_size": 8, "hidden_sizes": (8, 16), "depths": (1, 2), "groups_width": 4},
    "resnet": {"embedding_size": 8, "layer_type": "basic"} | _STAGED,
    "segformer": _FOUR | {"num_encoder_blocks": 4},
    "swin": _SWIN,
    "swinv2": _SWIN,
    "t5": {"decoder_start_token_id": 0},
    "timesformer": {"num_frames": 4},
    "timm_wrapper": {"architecture": "test_resnet"},
    "videomae": {"num_frames": 4},
    "vivit": {"num_frames": 4, "tubelet_size": [2, 8, 8]},
    "hubert": _SPEECH,
    "wav2vec2": _SPEECH,
    "wav2vec2-conformer": {"layerdrop": 0.0},
    "wavlm": _SPEECH,
    "xmod": {"default_language": "en_XX"},
}
LABELS = torch.tensor([0, 3, 1, 3])
TEXT = ["albert", "bart", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "esm", "gemma", "gpt2"]
TEXT += ["llama", "mistral", "modernbert", "mpnet", "opt", "qwen2", "roberta", "t5", "xlm-roberta", "xlnet"]
IMAGE = ["beit", "clip", "convnext", "convnextv2", "deit", "dinov2", "dinov2_with_registers", "resnet", "segformer"]
IMAGE += ["siglip", "swin", "timm_wrapper", "vit"]
VIDEO = ["timesformer", "videomae", "vivit"]
AUDIO = ["audio-spectrogram-transformer", "hubert", "sew", "wav2vec2", "wav2vec2-bert", "wavlm", "whisper"]
KINDS = {"text": "SEQUENCE", "image": "IMAGE", "audio": "AUDIO", "video": "VIDEO"}
FAMILIES = {"text": TEXT, "image": IMAGE, "audio": AUDIO, "video": VIDEO}
NAMES = [f"{kind}/{name}" for kind, names in FAMILIES.items() for name in names]
TEXTS = [name for name in NAMES if name.startswith("text/")]
REFUSED = {"text/canine", "image/cvt", "image/swiftformer", "image/hgnet_v2"}
UNKNOWN = {  # neither known to work nor refused, as no small model of them was made
    *("text/layoutlmv2", "image/dinat"),  # need a package
    *("text/perceiver", "image/perceiver", "image/textnet"),  # too large
    *("text/axk1", "text/axk2", "text/mistral4", "text/t5gemma", "image/levit"),  # sizes that must fit each other
    *("text/cohere_compass_text", "text/qwen3_5", "text/zamba", "text/zamba2"),  # kinds of layers to name
    *("image/siglip2", "image/shieldgemma2", "image/pp_lcnet"),  # take no plain images, or return no logits
}
EVERY = [
    f"{kind}/{family}"
    for kind, task in KINDS.items()
    for family in getattr(modeling_auto, f"MODEL_FOR_{task}_CLASSIFICATION_MAPPING_NAMES")
    if f"{kind}/{family}" not in {*REFUSED, *UNKNOWN}
]


def configuration(family, **settings):
    own = OWN.get(family, {}) | settings
    config = configuration_auto.CONFIG_MAPPING[family](**own)
    _resize(config, {name: size for name, size in SIZES.items() if name not in own})
    for name, value in own.items():
        with contextlib.suppress(AttributeError):  # what follows from other settings
            setattr(config, name, value)
    return config


def _resize(config, sizes):
    for name, size in sizes.items():
        with contextlib.suppress(NotImplementedError, AttributeError):  # properties that others follow from
            old = getattr(config, name)
            unset = old is None and not name.endswith("token_id") and name not in ("vocab_size", "head_dim")
            if not unset and isinstance(old, tuple | list) == isinstance(size, tuple):
                setattr(config, name, size)
    for value in list(vars(config).values()):
        if isinstance(value, transformers.PreTrainedConfig):
            _resize(value, sizes)


def make(name, **settings):
    """A small model, with nothing left at the tiny values it starts with, which would hide differences."""
    torch.manual_seed(1)
    kind, _, family = name.partition("/")
    names = getattr(modeling_auto, f"MODEL_FOR_{KINDS[kind]}_CLASSIFICATION_MAPPING_NAMES")[family]
    cls = getattr(transformers, names if isinstance(names, str) else names[0])
    model = cls(configuration(family, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def padded(model, more=0):
    return batch(model, lengths=(12, 7, 9, 5), width=LENGTH + more)


def batch(model, lengths=(12, 12, 12, 12), width=LENGTH):
    """A batch in which examples have these lengths, of text; of audio, 40 samples each."""
    torch.manual_seed(2)
    b, lengths = len(lengths), torch.tensor(lengths)
    main = model.main_input_name
    if main == "input_ids":
        tokens = nn.functional.pad(torch.randint(3, 120, (b, LENGTH)), (0, width - LENGTH))
        mask = torch.arange(width) < lengths[:, None]
        tokens = tokens.scatter(1, lengths[:, None] - 1, END)
        return {"input_ids": torch.where(mask, tokens, PADDING), "attention_mask": mask.long()}
    if main == "pixel_values":
        config = getattr(model.config, "vision_config", model.config)
        size = getattr(config, "image_size", 64)
        images = torch.nn.functional.interpolate(torch.randn(b, 3, 4, 4), size=size, mode="bicubic")
        frames = getattr(model.config, "num_frames", 0)
        return {main: images[:, None] * torch.linspace(1, 0.5, frames).view(-1, 1, 1, 1) if frames else images}
    if main == "input_features":
        return {main: torch.randn(b, 32, 16) if "Bert" in type(model).__name__ else torch.randn(b, 16, 32)}
    if "AST" in type(model).__name__:
        return {main: torch.randn(b, 32, 16)}
    mask = torch.arange(40 * width) < 40 * lengths[:, None]
    waves = torch.randn(b, 40 * LENGTH)
    waves = nn.functional.pad(waves, (0, 40 * (width - LENGTH)))
    return {main: waves * mask, "attention_mask": mask.long()}


def with_batch(name):
    """A model and a padded batch, which it has run: of what it warns once is not for us to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(name)
        inputs = padded(model)
        model(**inputs)
    return model, inputs


def seed():
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002  # transformers draws the spans that it masks from it


def hooks(model):
    """Names of the modules on which something of ours is left; transformers leaves hooks of its own."""
    ours = {}
    for name, module in model.named_modules():
        found = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), vars(module).get("forward")]
        ours[name] = [f for f in found if (getattr(f, "__module__", None) or "").startswith("multimix")]
    return [name for name, found in ours.items() if found]
