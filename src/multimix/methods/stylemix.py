"""StyleMix and StyleCutMix."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Count, Fraction, Ge, Positive
from multimix.methods._adain import ClassStyles, SmallAutoencoder, VGGAutoencoder
from multimix.methods._images import Weight, uniform
from multimix.methods._predict import MixesInputs, Mixing, PairMixing
from multimix.ops import beta, draw_box, draw_partners, exchange_styles, mix_styles, objective_of, paste_styles
from multimix.protocols import Network, Stateful


@dataclass(eq=False)
class _Styles(Stateful, MixesInputs, Checked):
    """What StyleMix and StyleCutMix share: an autoencoder, its settings, and the coin."""

    needs_images: ClassVar[bool] = True

    prob: Fraction = 0.2
    """Share of the steps that are mixed; the others are plain."""
    r: Fraction = 0.7
    """How much the content decides about the label; the style has ``1 - r``."""
    alpha1: Positive = 0.5
    """Concentration of the Beta distribution of the shares of content and style."""
    encoder: str | None = None
    """File of VGG-19 weights as published with pytorch-AdaIN (``vgg_normalised.pth``); none for the small one."""
    decoder: str | None = None
    """File of the weights of its decoder (``decoder.pth``)."""
    size: Count | None = None
    """Shorter side to which images are scaled for the autoencoder; as they are by default, 224 with VGG."""
    learning_rate: Weight = 0.005
    """Step of the small decoder's Adam; 0 keeps it as it is."""
    warmup: Annotated[int, Ge(0)] = 50
    """Further steps that the small decoder takes on the first mini-batch it sees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.encoder is None) != (self.decoder is None):
            raise ValueError(
                f"encoder and decoder must be given together, got encoder={self.encoder!r}, decoder={self.decoder!r}"
            )
        if self.encoder is not None and self.size is not None and self.size < 16:  # deepest maps need a neighbour
            raise ValueError(f"size must be at least 16 with files of weights, got {self.size}")
        self.autoencoder: Any = None

    def prepare(self, network: Network | None) -> None:
        """Build the autoencoder, or load it from the files of weights, unless there is one."""
        if network is not None:
            self.meet(network, anew=True)
            self.met(network)
        if self.autoencoder is not None:
            return
        if self.encoder is None or self.decoder is None:
            self.autoencoder = SmallAutoencoder(self.size)
        else:
            self.autoencoder = VGGAutoencoder(self.encoder, self.decoder, self.size or 224)

    forward = MixesInputs.__call__

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless this is a mini-batch of images that are grey or have three colours."""
        super().check(inputs, targets)
        if inputs.shape[1] not in (1, 3):
            name, shape = type(self).__name__, tuple(inputs.shape)
            raise ValueError(
                f"inputs must be images of shape (b, c, h, w) for {name}, with 1 or 3 channels, got {shape}"
            )

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw whether to mix and, if so, partners and shares, once the small autoencoder has learnt from them."""
        self.prepare(None)  # of a network in between nothing depends
        if network is not None:
            self.met(network)
        if next(self.autoencoder.buffers(), inputs).device != inputs.device:
            self.to(inputs.device)
        if float(uniform(generator=generator)) >= self.prob:
            return Mixing()
        if isinstance(targets, Tensor) and targets.ndim == 2:
            targets = targets[:, objective_of(network).before(targets) :]
        if self.training and not torch.is_inference_mode_enabled():
            self._learn(inputs, targets)
        return self._draw(inputs, targets, generator)

    @abstractmethod
    def _draw(self, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw the mixing of a step that mixes."""

    def _learn(self, inputs: Tensor, targets: Tensor) -> None:
        """Learn from a mini-batch that is about to be mixed."""
        if self.encoder is None and self.learning_rate > 0:
            self.autoencoder.learn(inputs, self.learning_rate, self.warmup)


@dataclass(eq=False)
class StyleMix(_Styles):
    r"""Mix content and style of pairs of images, each in its own proportion, in the features of an autoencoder.

    The first image gives the share rc of the content and rs of the style, both ~ Beta(alpha1, alpha1), and
    t ~ U[max(0, rc + rs - 1), min(rc, rs)] is the share that is both. With features :math:`f_1, f_2`,

    .. math:: \tilde x = D(t f_1 + (1 - r_c - r_s + t) f_2 + (r_c - t) \mathrm{AdaIN}(f_1, f_2)
              + (r_s - t) \mathrm{AdaIN}(f_2, f_1)),

    and the first label weighs ``r * rc + (1 - r) * rs``. One draw serves a whole mini-batch.

    Without files of weights the autoencoder is a small one: fixed random convolutions, and a decoder that learns to
    undo them from the mini-batches that are mixed, one step of its own optimiser each. Its weights are buffers, which
    no other optimiser sees: a loop of yours needs no more than the call, and ``prepare`` before it loads a checkpoint.
    ``eval()`` stops the learning.

    Reference:
        Hong, Choi and Kim, "StyleMix: separating content and style for enhanced data augmentation", CVPR 2021,
        section 3.2; defaults of its CIFAR code.
    """

    name: ClassVar[str] = "stylemix"

    def _draw(self, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        content, style = beta(2, self.alpha1, generator=generator, device=inputs.device)
        least = (content + style - 1).clamp(min=0)
        both = torch.lerp(least, torch.minimum(content, style), uniform(generator=generator, like=inputs))
        lam = torch.lerp(style, content, self.r)
        return PairMixing(partners, lam, self._mixed, content=content, style=style, both=both)

    def _mixed(self, images: Tensor, partners: Tensor, **shares: Tensor) -> Tensor:
        features = mix_styles(self.autoencoder.encode(images)[-1], partners, **shares)
        return self.autoencoder.decode(features, images)


@dataclass(eq=False)
class StyleCutMix(_Styles):
    r"""Paste a box of each image into its partner, and mix the styles of the two everywhere.

    In the box the content is the first image's, outside its partner's; the first image gives the share
    rs ~ Beta(alpha1, alpha1) of the style. A restyled image is blended with its original,
    :math:`g_{12} = \gamma x_1 + (1 - \gamma) D(\mathrm{AdaIN}(f_1, f_2))`, so that the mixed image is
    :math:`r_s x_1 + (1 - r_s) g_{12}` in the box and :math:`(1 - r_s) x_2 + r_s g_{21}` outside. With lambda the share
    of the box, the first label weighs ``r * lam + (1 - r) * (gamma * lam + (1 - gamma) * rs)``.

    The autoencoder is that of :class:`StyleMix`.

    Reference:
        Hong, Choi and Kim, "StyleMix: separating content and style for enhanced data augmentation", CVPR 2021,
        section 3.3; defaults of its CIFAR code.
    """

    name: ClassVar[str] = "stylecutmix"

    prob: Fraction = 0.5
    """Share of the steps that are mixed; the others are plain."""
    alpha1: Positive = 1.0
    """Concentration of the Beta distributions of the box and of the share of style."""
    alpha2: Positive = 0.8
    """Concentration of the Beta distribution of gamma, where that is drawn."""
    gamma: Literal["beta", "auto"] | Fraction = "beta"
    """How much of a restyled image is the original: drawn from Beta(alpha2, alpha2) each step; for each pair
    ``tanh(distance / delta)`` of the styles of its classes, as far as they have been seen; or a number."""
    delta: Positive = 3.0
    """Scale of the distance of styles, for ``auto``; the official code has 3 for CIFAR-100 and 1 for CIFAR-10."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # The mean distance of two classes of CIFAR-100 in the official code's matrix: delta means the same with either.
        scale = 1.37 if self.encoder is None else None
        self.styles = ClassStyles(scale) if self.gamma == "auto" else None

    def _learn(self, inputs: Tensor, targets: Tensor) -> None:
        super()._learn(inputs, targets)
        if self.styles is not None:
            with torch.no_grad():
                self.styles.see(self.autoencoder.encode(inputs), targets)

    def _draw(self, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        height, width = inputs.shape[-2:]
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        style, share = beta(2, self.alpha1, generator=generator, device=inputs.device)
        box = draw_box(height, width, 1 - float(share), generator=generator)
        gamma, area = self._gamma(targets, partners, generator), box.area / (height * width)
        lam = self.r * area + (1 - self.r) * (gamma * area + (1 - gamma) * style)
        return PairMixing(partners, lam, self._pasted, box=box, style=style, gamma=gamma)

    def _pasted(self, images: Tensor, partners: Tensor, **drawn: Any) -> Tensor:
        exchanged = exchange_styles(self.autoencoder.encode(images)[-1], partners)
        return paste_styles(images, self.autoencoder.decode(exchanged, images), partners, **drawn)

    def _gamma(self, targets: Tensor, partners: Tensor, generator: Generator | None) -> Tensor:
        """Return one blend for all, or one a pair."""
        if self.gamma == "beta":
            return beta(1, self.alpha2, generator=generator, device=partners.device)[0]
        if self.styles is None:
            return torch.tensor(float(self.gamma), device=partners.device)
        return torch.tanh(self.styles.distances(targets, partners) / self.delta)
