"""Images: what decodes, what is refused, and that the pixels are the server's."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from align.errors import AlignError
from align.inputs.images import image_size, mime_type, open_image, resolve_image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    opened = open_image(_png(image))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_exif_orientation_turns_the_image_and_its_size() -> None:
    image = Image.new("RGB", (4, 2), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert open_image(buffer.getvalue()).size == (2, 4)
    assert image_size(buffer.getvalue()) == (4, 2)  # (height, width)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_a_size_is_read_without_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    Image.new("RGB", (4, 2)).save(buffer, kind, **turned)
    shown = open_image(buffer.getvalue()).size
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    assert image_size(buffer.getvalue()) == shown[::-1] == ((4, 2) if turned else (2, 4))


def test_exif_behind_a_pngs_pixels_turns_it_too() -> None:
    """The chunk moved from before IDAT to before IEND, which the format allows."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2)).save(buffer, "PNG", exif=exif)
    data = buffer.getvalue()
    start = data.index(b"eXIf") - 4
    length = int.from_bytes(data[start : start + 4]) + 12
    chunk, rest = data[start : start + length], data[:start] + data[start + length :]
    late = rest[: rest.index(b"IEND") - 4] + chunk + rest[rest.index(b"IEND") - 4 :]
    assert open_image(late).size == (2, 4) and image_size(late) == (4, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is a text file", "not an image"),
        (_png(Image.effect_noise((64, 64), 50))[:700], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_what_cannot_be_decoded_is_named(data: bytes, message: str) -> None:
    with pytest.raises(AlignError, match=message):
        open_image(data)


def test_size_is_checked_before_decoding() -> None:
    with pytest.raises(AlignError, match="64x64 pixels, more than 100"):
        open_image(_png(Image.new("RGB", (64, 64)))[:60], max_pixels=100)


def test_paths_stay_inside_the_root(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    for escape in ("../secret.png", "link.png", str(tmp_path / "secret.png")):
        with pytest.raises(AlignError, match="leaves the image root"):
            resolve_image(root, escape)
    with pytest.raises(AlignError, match=r"missing image: a\.png"):
        resolve_image(root, "a.png")


def test_mime_type_by_content() -> None:
    assert mime_type(_png(Image.new("L", (1, 1)))) == "image/png"
    assert mime_type(b"\xff\xd8\xff\xe0") == "image/jpeg"


@pytest.mark.parametrize(
    ("mode", "values", "fits"),
    [
        ("I;16", (0, 4095), False),
        ("I;16", (0, 255), True),
        ("I", (0, 65535), False),
        ("F", (0.0, 1.0), False),
        ("F", (0.0, 254.5), True),
        ("F", (-1.0, 20.0), False),
        ("F", (float("nan"), 20.0), False),
    ],
)
def test_grey_values_that_8_bits_do_not_hold_are_refused(
    mode: str, values: tuple[float, float], fits: bool
) -> None:
    """Pillow would give white for all that lies above 255, and black for a picture from 0 to 1."""
    image = Image.new(mode, (2, 1))
    for place, value in enumerate(values):
        image.putpixel((place, 0), value)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    if fits:
        assert image_size(buffer.getvalue()) == (1, 2) and open_image(buffer.getvalue()).size == (2, 1)
        return
    for read in (image_size, open_image):
        with pytest.raises(AlignError, match="8 bits do not hold"):
            read(buffer.getvalue())
