"""StyleMix and StyleCutMix in plain loops, and methods whose autoencoder does nothing."""

import math

import torch
from torch import nn

from multimix.methods._adain import Autoencoder, ClassStyles
from multimix.methods.stylemix import StyleCutMix, StyleMix

BOTH = [StyleMix, StyleCutMix]


class Nothing(Autoencoder):
    """Features are the images."""

    def __init__(self):
        super().__init__([nn.Identity()], None)

    def _enter(self, images):
        return images

    def _decode(self, features):
        return features


def always(cls, **settings):
    """A method that mixes every step and does not learn."""
    return cls(prob=1.0, learning_rate=0.0, **settings)


def with_nothing(cls, **settings):
    method = always(cls, **settings)
    method.autoencoder = Nothing()
    if getattr(method, "styles", None) is not None:
        method.styles = ClassStyles()
    return method


def channel(values):
    """Mean and unbiased deviation of a channel, a list of numbers."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1) if len(values) > 1 else 0.0
    return mean, math.sqrt(variance + 1e-5)


def slow_adain(content, style):
    out = torch.empty_like(content)
    for i in range(len(content)):
        for c in range(content.shape[1]):
            mean, std = channel(content[i, c].flatten().tolist())
            new_mean, new_std = channel(style[i, c].flatten().tolist())
            for y in range(content.shape[2]):
                for x in range(content.shape[3]):
                    out[i, c, y, x] = (float(content[i, c, y, x]) - mean) / std * new_std + new_mean
    return out


def slow_four_way(features, partners, rc, rs, t):
    other = features[partners]
    one, two = slow_adain(features, other), slow_adain(other, features)
    return t * features + (1 - rc - rs + t) * other + (rc - t) * one + (rs - t) * two


def slow_cut(images, partners, decode, box, rs, gamma):
    """The four shares of each pixel: T of x1, 1 - Rc - Rs + T of x2, Rc - T of g12, Rs - T of g21."""
    out = torch.empty_like(images)
    for i, p in enumerate(partners.tolist()):
        g = float(gamma[i]) if gamma.ndim else float(gamma)
        x1, x2 = images[i : i + 1], images[p : p + 1]
        g12 = g * x1 + (1 - g) * decode(slow_adain(x1, x2))
        g21 = g * x2 + (1 - g) * decode(slow_adain(x2, x1))
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                rc = 1.0 if box.top <= y < box.bottom and box.left <= x < box.right else 0.0
                t = max(0.0, rc + rs - 1)
                shares = (t, 1 - rc - rs + t, rc - t, rs - t)
                out[i, :, y, x] = sum(w * v[0, :, y, x] for w, v in zip(shares, (x1, x2, g12, g21), strict=True))
    return out
