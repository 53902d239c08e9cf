"""Transfer to object detection: recipes of ``multimix detect``, beside those of ``multimix train``."""

from multimix.lab.detect import DetectConfig
from multimix.lab.recipes import Recipes
from multimix.lab.train import SGD, AdamW, Cosine, Step

DETECTION_RECIPES: Recipes[DetectConfig] = Recipes("recipe of detection")
"""Every recipe of ``multimix detect``."""
detection_recipe_named = DETECTION_RECIPES.named


@DETECTION_RECIPES.add
def voc0712() -> DetectConfig:
    """Return Faster R-CNN on VOC2007 and VOC2012 trainval, measured on VOC2007 test by VOC's average precision.

    Source: our own; the MultiMix paper transfers an ImageNet ResNet-50 by SSD with settings that are not known, so its
    figures do not compare; reported (unverified): 77.9 % for MultiMix, 79.2 % for Dense MultiMix. Command: ``multimix
    detect voc0712 --backbone RUN``, with RUN one of ``multimix train imagenet``. Hardware: one large GPU.
    """
    return DetectConfig(
        data="voc:data/VOCdevkit/VOC2007,data/VOCdevkit/VOC2012",
        train_split="trainval",
        test_data="voc:data/VOCdevkit/VOC2007",
        test_split="test",
        min_size=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        schedule=Step(milestones=(0.75, 11 / 12), warmup_epochs=0.1),
        epochs=23,
        optimizer=SGD(learning_rate=0.02, weight_decay=1e-4),
        workers=8,
    )


@DETECTION_RECIPES.add
def coco() -> DetectConfig:
    """Return Faster R-CNN on COCO 2017 for 12 epochs, measured on its validation images by COCO's average precision.

    Source: the MultiMix paper transfers an ImageNet ResNet-50 by Faster R-CNN with settings that are not known;
    reported (unverified): AP 35.93 % for MultiMix, 36.19 % for Dense MultiMix. These settings are the usual ones of 12
    epochs at 16 images a step. Command: ``multimix detect coco --backbone RUN``, with RUN one of ``multimix train
    imagenet``. Hardware: one large GPU.
    """
    return DetectConfig(
        data="coco:data/coco",
        min_size=(640, 672, 704, 736, 768, 800),
        schedule=Step(milestones=(2 / 3, 11 / 12), warmup_epochs=0.1),
        epochs=12,
        optimizer=SGD(learning_rate=0.02, weight_decay=1e-4),
        workers=8,
    )


@DETECTION_RECIPES.add
def coco_mini() -> DetectConfig:
    """Return a small Faster R-CNN on 80 images of COCO, which it begins to learn by heart: proof that everything works.

    Measured on its own training images too, where the average precision must rise. Source: our own. Command:
    ``multimix detect coco-mini --backbone RUN --data coco:PATH``, with RUN a small network, as of ``multimix train
    cifar10 --width 16``. Hardware: a CPU; one such run is in benchmarks/detection-coco-mini-cpu.jsonl.
    """
    return DetectConfig(
        data="coco:data/coco-mini",
        evaluate_train=True,
        trainable_stages=4,
        norm="trained",
        anchor=4,
        channels=32,
        hidden=256,
        proposals=300,
        sampled=64,
        min_size=(128,),
        max_size=214,
        flip=False,
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01),
        schedule=Cosine(warmup_epochs=0.5),
        epochs=25,
        batch_size=2,
    )
