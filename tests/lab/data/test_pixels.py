"""Images of every mode, depth and orientation as upright RGB, against their pixels counted; what is refused."""

import numpy as np
import pytest
from PIL import Image

from multimix.lab.data._pixels import UnreadableError, look_at, read_image, suffixes

RAMP = np.linspace(0, 1, 60).reshape(6, 10)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


@pytest.fixture
def read(tmp_path):
    """Save an image and return what is read of it."""

    def through(image, name="image.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return np.asarray(read_image(str(tmp_path / name))).astype(int)

    return through


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_to_eight(read, name, dtype):
    if dtype == ">u2" and name.endswith("png"):
        pytest.skip("PNG has one order of bytes")
    found = read((RAMP * 65535).round().astype(dtype), name)
    assert np.abs(found - (RAMP * 255)[..., None]).max() <= 0.51
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize(
    "values", [(RAMP * 255).astype(np.uint8), (RAMP * 65535).round().astype(np.uint16)], ids=["8 bits", "16 bits"]
)
def test_a_tiff_whose_zero_is_white_is_shown_so(tmp_path, values):
    photometric, path = 262, tmp_path / "image.tif"
    Image.fromarray(values).save(path, compression="raw", tiffinfo={photometric: 0})
    with Image.open(path) as image:
        [offset] = image.tag_v2[273]
        assert image.tag_v2[photometric] == 0
    stored = np.frombuffer(path.read_bytes()[offset:], values.dtype, count=60).reshape(6, 10)
    found = np.asarray(read_image(str(path))).astype(int)[..., 0]
    assert np.abs(found - (255 - stored / (np.iinfo(values.dtype).max / 255))).max() <= 0.51


def test_floats_between_0_and_1_are_scaled(read):
    found = read(RAMP.astype(np.float32), "image.tif")
    assert np.abs(found - (RAMP * 255)[..., None]).max() <= 0.51


def test_a_tiff_that_says_it_has_twelve_bits_is_scaled_by_them(tmp_path):
    values = (RAMP * 4095).round().astype(np.uint16)
    path = tmp_path / "image.tif"
    Image.fromarray(values).save(path, tiffinfo={258: 16})
    with Image.open(path) as image:
        image.load()
        image.tag_v2[258] = (12,)
        from multimix.lab.data._pixels import _eight_bits

        assert np.abs(_eight_bits(image).astype(int) - RAMP * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        ((RAMP * 4095).astype(np.uint16), "x.png", r"x\.png .*16 bits hold numbers up to 4095 only"),
        ((RAMP * 16383).astype(np.uint16), "x.png", r"numbers up to 16383 only"),
        ((RAMP * 255).astype(np.float32), "x.tif", r"floats lie in \[0, 255\]; white is known for those in \[0, 1\]"),
        ((RAMP - 0.5).astype(np.float32), "x.tif", r"floats lie in \[-0\.5, 0\.5\]"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "x.tif", r"floats lie in \[nan, nan\]"),
        ((RAMP * 1000).astype(np.int32), "x.tif", r"integers of 32 bits have no known white"),
    ],
)
def test_numbers_whose_white_is_not_known_are_refused_by_name(read, values, name, message):
    with pytest.raises(UnreadableError, match=message) as caught:
        read(values, name)
    assert "\n" not in str(caught.value)


def test_black_is_black_at_any_depth(read):
    for dtype in (np.uint16, np.float32):
        assert read(np.zeros((4, 5), dtype), "black.tif").max() == 0


def test_what_is_transparent_lies_on_white(read):
    alpha = (RAMP * 255).round().astype(np.uint8)
    share = alpha[..., None] / 255
    over = COLOURS * share + 255 * (1 - share)
    assert np.abs(read(np.dstack([COLOURS, alpha])) - over).max() <= 1
    grey = COLOURS[..., 0]
    la = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    assert np.abs(read(la) - (grey * share[..., 0] + 255 * (1 - share[..., 0]))[..., None]).max() <= 1
    hidden = np.dstack([np.full((6, 10), 255), np.zeros((6, 10, 2)), np.zeros((6, 10))]).astype(np.uint8)
    assert read(hidden).min() == 255


def test_transparent_entries_of_a_palette_and_a_transparent_colour_lie_on_white(read):
    palette = Image.fromarray((RAMP * 3).astype(np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    found = read(palette, transparency=0)
    index = np.asarray(palette)
    truth = np.array([[255, 255, 255], [0, 255, 0], [0, 0, 255], [9, 9, 9]])[index]
    assert (found == truth).all()
    image = COLOURS.copy()
    image[:3] = (1, 2, 3)
    truth = image.astype(int)
    truth[:3] = 255
    assert (read(image, transparency=(1, 2, 3)) == truth).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_other_modes_are_those_of_pillow(read, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    assert np.abs(read(image, "x.tif") - np.asarray(image.convert("RGB")).astype(int)).max() <= 2
    assert read(np.repeat(COLOURS[:1, :1], 4, 0)).shape == (4, 1, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(tmp_path, orientation):
    upright = Image.fromarray(COLOURS)
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](COLOURS)
    exif = Image.Exif()
    exif[274] = orientation
    path = str(tmp_path / "image.png")
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert np.array_equal(read_image(path), upright)
    assert np.array_equal(read_image(path, upright=False), stored)


def test_the_first_image_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for name in ("image.gif", "image.webp", "image.png"):
        frames[0].save(
            tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if "webp" in name else {})
        )
        assert np.asarray(read_image(str(tmp_path / name)))[0, 0].tolist() == [255, 0, 0]


def test_a_look_finds_the_size_and_what_cannot_be_read(tmp_path):
    large = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    for name in ("a.jpg", "b.png", "cut.jpg", "cut.png"):
        large.save(tmp_path / name)
    for name in ("cut.jpg", "cut.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    good = {path for path in paths if path.endswith(("a.jpg", "b.png"))}
    for whole in (True, False):
        looks = dict(zip(paths, look_at(paths, whole=whole), strict=True))
        assert {p for p, look in looks.items() if look.size} == good | (
            {p for p in paths if "cut" in p} if not whole else set()
        )
        assert {look.size for p, look in looks.items() if p in good} == {(80, 64)}
        assert all(p in look.problem for p, look in looks.items() if look.problem)


def test_suffixes_are_those_that_pillow_decodes():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif", ".jfif", ".ppm"} <= suffixes()
    assert not {".h5", ".pdf", ".mpg", ".txt", ".eps"} & suffixes()
