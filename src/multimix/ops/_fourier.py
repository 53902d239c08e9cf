"""Binary masks cut from low-frequency noise."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix.ops._arguments import check_generator, check_number, check_sizes


def draw_mask(
    height: int,
    width: int,
    lam: float,
    decay: float,
    *,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Float[Tensor, "h w"]:
    r"""Return a mask of 0 and 1 in which ``round(lam * h * w)`` pixels are 1, in few connected pieces.

    They are the largest of a random image whose Fourier coefficients, complex normal numbers, are divided by
    :math:`f^\mathrm{decay}`, f being their frequency, of at least one period an image.

    Raises:
        ValueError: If ``lam`` lies outside [0, 1].

    Reference:
        Harris et al., "FMix: enhancing mixed sample data augmentation", 2020, section 4.
    """
    check_sizes(height=height, width=width)
    check_number("lam", lam)
    check_number("decay", decay)
    check_generator(generator)
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], got {lam}")
    home = device if generator is None else generator.device
    image = _low_frequencies(height, width, decay, generator, home).flatten()
    ones = image.topk(round(lam * height * width)).indices
    return torch.zeros_like(image).index_fill_(0, ones, 1).view(height, width).to(device)


def _low_frequencies(
    height: int, width: int, decay: float, generator: Generator | None, device: torch.device | str | None
) -> Float[Tensor, "h w"]:
    down, along = torch.fft.fftfreq(height, device=device), torch.fft.fftfreq(width, device=device)
    frequencies = torch.hypot(down.unsqueeze(1), along).clamp_(min=1 / max(height, width))
    normal = torch.randn(height, width, 2, generator=generator, device=device)
    # All frequencies rather than half of them: a half plane has to be weighted to be the same in every direction.
    return torch.fft.ifft2(torch.view_as_complex(normal) * frequencies.pow_(-decay)).real
