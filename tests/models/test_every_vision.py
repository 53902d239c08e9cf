"""The families of timm and torchvision: that tests have every one, and which are refused with what to do instead."""

from functools import partial
from typing import get_type_hints

import pytest
import timm
from torchvision import models as tv

from models.small_vision import CLASSES, TIMM, TORCHVISION, VIT, VOLO, create
from multimix.models import adapt

AUXILIARY = r"has auxiliary classifiers; adapt\(model, head='fc'\) trains its main one"
REFUSED = {  # name or what makes it, settings, image size, what the error says
    "crossvit": ("crossvit_tiny_240", {}, 240, "CrossVit combines several classifiers"),
    "efficientvim": ("efficientvim_m1", {}, 64, "EfficientViM combines several classifiers"),
    "volo/auxiliary": ("VOLO", VOLO, 64, "VOLO adds the maximum of auxiliary logits .* use_aux_head=False"),
    "deit/distilled": (
        "deit_tiny_distilled_patch16_224",
        VIT,
        32,
        "Distilled combines several classifiers, .* without",
    ),
    "SqueezeNet": (tv.squeezenet1_1, {}, 64, "SqueezeNet ends in a convolution and a ReLU, not in a linear layer"),
    "GoogLeNet/auxiliary": (partial(tv.googlenet, init_weights=False), {}, 64, f"GoogLeNet {AUXILIARY}"),
    "Inception3/auxiliary": (partial(tv.inception_v3, init_weights=False), {}, 96, f"Inception3 {AUXILIARY}"),
}


def test_the_tables_have_every_family():
    assert not TIMM.keys() & REFUSED.keys()
    known = {key.partition("/")[0] for key in TIMM | TORCHVISION | REFUSED}
    builders = {name: tv.get_model_builder(name) for name in tv.list_models(module=tv)}
    assert len(builders) > 70
    returned = {name: get_type_hints(builder)["return"] for name, builder in builders.items()}
    assert known == {*timm.list_modules(), *(cls.__name__ for cls in returned.values())}
    for name, cls in returned.items():
        assert builders[name].__module__ == cls.__module__, name


@pytest.mark.bad_input
@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_be_split_is_refused(family):
    *row, words = REFUSED[family]
    model, images = create(family, *row)
    assert model.eval()(images).shape == (3, CLASSES)
    with pytest.raises(ValueError, match=words):
        adapt(model)
