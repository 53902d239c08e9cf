"""Which layers are affine."""

from torch import nn

_CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def axes_of(module: nn.Module) -> int:
    """Return how many axes a convolution slides along, 0 for any other layer."""
    return next((axes for axes, cls in enumerate(_CONVOLUTIONS, 1) if isinstance(module, cls)), 0)


def is_affine(module: nn.Module) -> bool:
    """Whether a layer is linear or a 1x1 convolution and computes what torch's do."""
    # A subclass may compute anything else, cosines for one; timm's computes what its base does.
    cls = type(module)
    if "forward" in vars(module):
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        single = {*module.kernel_size, *module.stride} == {1} and module.groups == 1 and not any(module.padding)
        return single and cls.forward is _CONVOLUTIONS[axes_of(module) - 1].forward
    return isinstance(module, nn.Linear) and (
        cls.forward is nn.Linear.forward or cls.__module__ == "timm.layers.linear"
    )
