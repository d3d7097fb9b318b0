"""Reading image files: every kind of file gives the right pixels, and no file brings the run down."""

from __future__ import annotations

import contextlib
import io
import os
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import bomb, save, scene
from PIL import Image, ImageFile, ImageOps

from trueread.cohort import decoding
from trueread.cohort.decoding import InMemory, in_threads
from trueread.cohort.read import depth_notes, read_image, read_images, white_levels
from trueread.errors import InputError
from trueread.imagefile import decode
from trueread.imagefile.decode import Unreadable, decode_mask, pillow_ready


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp", "pgm", "gif"])
def test_a_lossless_file_of_the_right_size_comes_back_exactly(tmp_path, ending):
    pixels = scene(48, 48)
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    path = save(tmp_path / f"a.{ending}", pixels, **options)
    np.testing.assert_array_equal(read_image(path, size=48, channels=1), pixels[None])


def test_colour_comes_back_channels_first_and_luma_is_itu_601(tmp_path):
    pixels = scene(32, 32, channels=3)
    path = save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(path, size=32, channels=3), np.moveaxis(pixels, -1, 0))
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(path, size=32, channels=1)[0] - luma).max() <= 1


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_come_back_exactly(tmp_path, ending):
    pixels = (np.arange(40 * 40).reshape(40, 40) * 40).astype(np.uint16)
    path = save(tmp_path / f"a.{ending}", pixels)
    found = read_image(path, size=40, channels=1)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(read_image(path, size=40, channels=3), np.stack([pixels] * 3))


def test_32_bit_integers_within_16_bits_are_read_and_others_refused(tmp_path):
    pixels = (np.arange(40 * 40).reshape(40, 40) * 40).astype(np.int32)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", pixels), size=40, channels=1)[0], pixels)
    for strange in (pixels - 1, pixels + 70_000):
        with pytest.raises(InputError, match="16-bit images hold 0 to 65535"):
            read_image(save(tmp_path / "b.tif", strange), size=40, channels=1)


BLUISH = (40, 80, 160)
FLAT = {
    "1": (Image.new("1", (30, 20), 1), (255, 255, 255)),
    "L": (Image.new("L", (30, 20), 90), (90, 90, 90)),
    "LA over black": (Image.new("LA", (30, 20), (200, 51)), (40, 40, 40)),
    "P": (Image.new("RGB", (30, 20), BLUISH).quantize(4), BLUISH),
    "RGBA": (Image.new("RGBA", (30, 20), (*BLUISH, 255)), BLUISH),
    "RGBA over black": (Image.new("RGBA", (30, 20), (100, 200, 50, 102)), (40, 80, 20)),
    "RGBA invisible": (Image.new("RGBA", (30, 20), (255, 255, 255, 0)), (0, 0, 0)),
}


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("kind", FLAT)
def test_every_colour_model_of_a_flat_image(tmp_path, kind, fit):
    image, colour = FLAT[kind]
    found = read_image(save(tmp_path / "a.png", image), size=16, channels=3, fit=fit)
    assert found.shape == (3, 16, 16)
    np.testing.assert_array_equal(found, np.broadcast_to(np.array(colour)[:, None, None], found.shape))


def test_cmyk_and_transparent_palettes(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (32, 32), (0, 255, 255, 0)), quality=100)
    assert np.abs(read_image(path, size=16, channels=3).mean(axis=(1, 2)) - (255, 0, 0)).max() <= 3
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([9, 9, 9, 250, 0, 0])
    path = save(tmp_path / "b.png", palette, transparency=1)
    assert read_image(path, size=16, channels=3).max() == 0


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_exif_orientation_gives_what_a_viewer_shows(tmp_path, ending, orientation, fit):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(scene(40, 60))
    turned = save(tmp_path / f"turned.{ending}", image, exif=exif)
    with Image.open(save(tmp_path / "turned.png", image, exif=exif)) as stored:
        shown = save(tmp_path / "shown.png", ImageOps.exif_transpose(stored), exif=Image.Exif())
    np.testing.assert_array_equal(
        read_image(turned, size=20, channels=1, fit=fit), read_image(shown, size=20, channels=1, fit=fit)
    )


def test_crop_equals_resizing_the_shorter_side_and_cutting_the_centre_out(tmp_path):
    pixels = scene(90, 150)
    resized = np.asarray(Image.fromarray(pixels).resize((50, 30), Image.Resampling.BILINEAR), int)
    found = read_image(save(tmp_path / "a.png", pixels), size=30, channels=1, fit="crop")[0].astype(int)
    difference = np.abs(found - resized[:, 10:40])
    assert (
        difference[:, 1:-1].max() <= 1
    )  # the filter sees no pixels beyond the cut, which touches the outermost columns
    assert difference.max() <= 12


def test_stretch_equals_pillow_and_pad_adds_black_on_both_sides(tmp_path):
    pixels = np.maximum(scene(90, 150), 20)
    path = save(tmp_path / "a.png", pixels)
    plain = np.asarray(Image.fromarray(pixels).resize((30, 30), Image.Resampling.BILINEAR), int)
    assert np.abs(read_image(path, size=30, channels=1, fit="stretch")[0] - plain).max() <= 1
    padded = read_image(path, size=30, channels=1, fit="pad")[0]
    inner = np.asarray(Image.fromarray(pixels).resize((30, 18), Image.Resampling.BILINEAR), int)
    assert np.abs(padded[6:24] - inner).max() <= 1
    assert padded[:6].max() == padded[24:].max() == 0


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (3000, 1), (1, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extreme_shapes_stay_small(tmp_path, height, width, fit):
    path = save(tmp_path / "a.png", np.full((height, width), 77, np.uint8))
    found = read_image(path, size=64, channels=1, fit=fit)
    assert found.shape == (1, 64, 64)
    assert found.max() == 77
    assert fit == "pad" or found.min() == 77


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_jpeg_decoded_at_reduced_scale_is_nearly_the_full_decode(tmp_path, channels):
    pixels = scene(480, 480, channels=3)
    path = save(tmp_path / "a.jpg", pixels, quality=95)
    with Image.open(path) as stored:
        full = stored.convert("L" if channels == 1 else "RGB").resize((64, 64), Image.Resampling.BILINEAR)
    full = np.asarray(full, float).reshape(64, 64, -1).transpose(2, 0, 1)
    assert np.sqrt(np.mean((read_image(path, size=64, channels=channels) - full) ** 2)) < 2


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (20, 20), grey) for grey in (30, 130, 230)]
    for ending in ("gif", "tif"):
        path = save(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:])
        assert set(np.unique(read_image(path, size=20, channels=1))) == {30}


def read_mask(path, *, size, fit="crop", aspect=float("nan")):
    with pillow_ready():
        return decode_mask(path, size=size, fit=fit, aspect=aspect)


def broken_files(folder):
    """Each broken file with what the reason has to say."""
    whole_jpeg, whole_png = io.BytesIO(), io.BytesIO()
    Image.fromarray(scene(200, 200)).save(whole_jpeg, "JPEG")
    Image.fromarray(scene(200, 200)).save(whole_png, "PNG")
    cases = {
        "empty.png": (b"", "empty"),
        "text.png": (b"not an image at all", "known format"),
        "cut.jpg": (whole_jpeg.getvalue()[:-800], "cut short"),
        "cut.png": (whole_png.getvalue()[:-800], "cut short|broken"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "known format"),
        "gone.png": (None, "no such file"),
    }
    for name, (content, _) in cases.items():
        if content is not None:
            (folder / name).write_bytes(content)
    bomb(folder / "bomb.png", 12_000)
    bomb(folder / "great_bomb.png", 30_000)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(folder / "float.tif")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return {
        **{name: reason for name, (_, reason) in cases.items()},
        "bomb.png": "12000 x 12000 is more than 100 million",
        "great_bomb.png": "more than 100 million",
        "folder.png": "not a file",
        "pipe.png": "not a file",
        "float.tif": "float intensities",
        "loop.png": "links",
    }


def test_broken_files_have_a_reason_in_words(tmp_path):
    for name, reason in broken_files(tmp_path).items():
        with pytest.raises(InputError, match=rf"{name} cannot be read: .*({reason}).*; replace the file"):
            read_image(tmp_path / name, size=32, channels=1)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_broken_files_are_left_out_and_listed(tmp_path):
    reasons = broken_files(tmp_path)
    good = [save(tmp_path / f"good{i}.png", np.full((20, 20), i, np.uint8)) for i in range(20)]
    paths = [path for pair in zip(good, [tmp_path / n for n in reasons], strict=False) for path in pair] + good[
        len(reasons) :
    ]
    found = read_images(paths, size=20, channels=1)
    assert [paths[k] for k in found.kept] == good
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], np.arange(20))
    assert [paths[k] for k in found.omitted.index] == [tmp_path / n for n in reasons]
    assert list(found.omitted["path"]) == [str(tmp_path / n) for n in reasons]
    assert (found.omitted["reason"].str.len() < 90).all()


def test_more_than_half_broken_is_an_error_that_shows_two_in_few_words(tmp_path):
    good = [save(tmp_path / f"good{i}.png", scene()) for i in range(7)]
    gone = [tmp_path / f"gone{i}.png" for i in range(8)]
    assert len(read_images([*good, *gone[:7]], size=16).kept) == 7
    with pytest.raises(InputError, match="8 of 15 files cannot be read") as caught:
        read_images([*good, *gone], size=16)
    assert [f"gone{i}.png" in str(caught.value) for i in range(8)] == [True] * 2 + [False] * 6
    deep = tmp_path / ("hospital-" * 20) / ("site-" * 20)
    with pytest.raises(InputError, match="2 of 2 files cannot be read") as caught:
        read_images([deep / "a.png", deep / "b.png"], size=16)
    assert len(str(caught.value)) < 400
    assert all(f"site-/{name}.png: no such file" in str(caught.value) for name in "ab")
    with pytest.raises(InputError, match="no image to read"):
        read_images([], size=16)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "bmp", "webp", "gif", "jp2", "ppm"])
def test_large_files_are_read_piece_by_piece_and_give_the_same(tmp_path, monkeypatch, ending):
    path = save(tmp_path / f"a.{ending}", scene(90, 120, channels=3))
    at_once = read_image(path, size=60, channels=3)
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", 0)
    np.testing.assert_array_equal(read_image(path, size=60, channels=3), at_once)
    assert at_once.std() > 20


@pytest.mark.parametrize("in_memory", [0, 2**26])
def test_a_length_that_is_wrong_takes_no_memory(tmp_path, monkeypatch, in_memory):
    """Python sets aside as many bytes as it is asked for, and Pillow asks for as many as the chunk claims."""
    path = save(tmp_path / "a.png", scene())
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") - 4] = 0x40  # a gigabyte
    path.write_bytes(raw)
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", in_memory)
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):  # the pixels, or that they cannot be read
            read_image(path, size=48, channels=1)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "PPM"]),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12),
    keep=st.floats(0.01, 1.0),
)
def test_damaged_bytes_give_pixels_or_an_input_error_and_nothing_else(tmp_path, kind, flips, keep):
    buffer = io.BytesIO()
    Image.fromarray(scene(40, 50, channels=3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for position, value in flips:
        content[position % len(content)] = value
    path = tmp_path / "damaged"
    path.write_bytes(content[: max(1, int(keep * len(content)))])
    try:
        pixels = read_image(path, size=16, channels=3)
    except InputError:
        return
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype in (np.uint8, np.uint16)


def test_what_the_files_are(tmp_path):
    wide = save(tmp_path / "a.png", scene(40, 60))
    turned = Image.fromarray(scene(40, 60))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    turned.save(tmp_path / "b.JPG", exif=exif)
    deep = save(tmp_path / "c.tif", scene(30, 30).astype(np.uint16) * 257)
    files = read_images([wide, tmp_path / "b.JPG", deep], size=16, channels=1).files
    assert files[["width", "height"]].to_numpy().tolist() == [[60, 40], [40, 60], [30, 30]]
    assert files["bytes"].tolist() == [path.stat().st_size for path in (wide, tmp_path / "b.JPG", deep)]
    assert files["bits"].tolist() == [8, 8, 16]
    assert files["ending"].tolist() == [".png", ".jpg", ".tif"]


def test_threads_give_what_one_by_one_gives_in_the_given_order(tmp_path):
    paths = [save(tmp_path / f"{i}.jpg", scene(50 + i, 70, channels=3, seed=i)) for i in range(40)]
    found = read_images(paths[::-1], size=24, channels=3, fit="pad")
    np.testing.assert_array_equal(
        found.images, np.stack([read_image(p, size=24, channels=3, fit="pad") for p in paths[::-1]])
    )
    np.testing.assert_allclose(found.files["width"] / found.files["height"], [70 / (50 + i) for i in range(39, -1, -1)])
    assert found.white == 255
    assert len(found.omitted) == 0


def test_one_16_bit_image_makes_all_16_bits_with_one_white(tmp_path):
    eight, sixteen = np.full((20, 20), 255, np.uint8), np.full((20, 20), 65535, np.uint16)
    paths = [
        save(tmp_path / "a.png", eight),
        save(tmp_path / "b.png", eight // 5),
        save(tmp_path / "c.png", sixteen),
        save(tmp_path / "d.png", eight // 3),
        save(tmp_path / "e.png", sixteen // 2),
    ]
    found = read_images(paths, size=20)
    assert (found.images.dtype, found.white) == (np.uint16, 65535)
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], [65535, 51 * 257, 65535, 85 * 257, 32767])
    np.testing.assert_array_equal(found.whites, [255, 255, 65535, 255, 65535])
    assert depth_notes(found) == ["2 of 5 files have 16 bits; the 8-bit ones are scaled by 257 to the same white."]
    np.testing.assert_array_equal(white_levels(found, 255), [65535] * 5)
    np.testing.assert_array_equal(white_levels(found, 4095), [65535, 65535, 4095, 65535, 4095])
    np.testing.assert_array_equal(white_levels(found, 200), [51400, 51400, 65535, 51400, 65535])


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("first_deep", range(8))
def test_turning_to_16_bits_in_place_keeps_every_row(monkeypatch, first_deep, step):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", step * 2 * 5 * 5)
    generator = np.random.default_rng(first_deep)
    rows = [generator.integers(0, 256, (2, 5, 5)).astype(np.uint8) for _ in range(8)]
    rows[first_deep] = generator.integers(0, 65536, (2, 5, 5)).astype(np.uint16)
    there = InMemory(10, (2, 5, 5))
    for row in rows:
        there.append(row)
    expected = [row if row.dtype == np.uint16 else row.astype(np.uint16) * 257 for row in rows]
    np.testing.assert_array_equal(there.rows(), expected)


def test_results_that_wait_are_few():
    """Whoever takes pictures slowly does not find all the others in memory."""
    started = []
    results = in_threads(lambda job: started.append(job) or job, range(10_000), bytes_each=decoding.CHUNK_BYTES)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.1)
    assert len(started) < 3 + 32 * (decoding.AHEAD + 2)
    assert list(results) == list(range(3, 10_000))


def test_a_line_for_16_bit_files_that_are_dark(tmp_path, capsys):
    paths = [save(tmp_path / f"{i}.png", np.full((20, 20), v, np.uint16)) for i, v in enumerate((900, 4080))]
    found = read_images(paths, size=20)
    line = "no 16-bit file is brighter than 4,080 of 65,535: if the detector has 12 bits, give white=4095."
    assert depth_notes(found) == [line]
    assert depth_notes(found, white=4095) == []
    assert line in capsys.readouterr().err
    bright = save(tmp_path / "bright.png", np.full((20, 20), 8192, np.uint16))
    assert depth_notes(read_images([*paths, bright], size=20)) == []
    assert depth_notes(read_images([save(tmp_path / "8.png", scene())], size=20)) == []


def test_auto_channels(tmp_path):
    grey = [save(tmp_path / f"{i}.jpg", Image.fromarray(scene(seed=i)).convert("RGB")) for i in range(70)]
    assert read_images(grey, size=16).images.shape[1] == 1  # grey, though stored as colour
    colour = save(tmp_path / "colour.jpg", scene(channels=3))
    for place in (0, 70):
        mixed = [*grey[:place], colour, *grey[place:]]
        assert read_images(mixed, size=16).images.shape[1] == 3
    assert read_images([colour, tmp_path / "gone.png"], size=16, channels=1).images.shape[1] == 1


def test_a_cohort_larger_than_memory_is_refused_before_reading(tmp_path):
    paths = [save(tmp_path / "a.png", scene())] * 10
    with pytest.raises(InputError, match=r"10 images of 3 x 1000000 x 1000000 need .* GiB, .*choose a smaller size"):
        read_images(paths, size=1_000_000, channels=3)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_masks_have_the_geometry_of_their_images(tmp_path, fit):
    pixels = np.zeros((90, 130), np.uint8)
    pixels[20:55, 60:110] = 255
    image, mask = save(tmp_path / "image.png", pixels), save(tmp_path / "mask.png", pixels)
    shown = read_image(image, size=32, channels=1, fit=fit)[0]
    np.testing.assert_array_equal(read_mask(mask, size=32, fit=fit), shown >= 128)


@pytest.mark.parametrize(
    ("values", "marked"),
    [
        pytest.param(np.array([0, 1, 2, 0]), [0, 1, 1, 0], id="label numbers"),
        pytest.param(np.array([0, 5, 127, 255]), [0, 0, 0, 1], id="faint ringing"),
        pytest.param(np.array([0, 0, 0, 0]), [0, 0, 0, 0], id="nothing"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_counts_as_marked(tmp_path, values, marked, dtype):
    scale = 257 if dtype == np.uint16 and values.max() == 255 else 1
    columns = np.repeat((values * scale).astype(dtype)[None], 4, axis=0)
    found = read_mask(save(tmp_path / "a.png", np.kron(columns, np.ones((8, 8), dtype))), size=32)
    np.testing.assert_array_equal(found, np.kron([marked] * 4, np.ones((8, 8))))
    assert found.dtype == np.uint8


def test_masks_small_blank_misshapen_and_gone(tmp_path):
    dot = np.zeros((256, 256), np.uint8)
    dot[100:103, 200:203] = 255
    found = read_mask(save(tmp_path / "dot.png", dot), size=16, aspect=1.0)
    assert found.sum() == 1  # a lesion of 3 x 3 in cells of 16 x 16 does not vanish
    assert found[6, 12] == 1
    assert read_mask(None, size=16).sum() == 0
    wide = save(tmp_path / "wide.png", scene(40, 90))
    with pytest.raises(Unreadable, match="the mask is 90 x 40, another shape"):
        read_mask(wide, size=16, aspect=1.0)


def test_images_with_masks_are_read_together_and_lose_both_when_one_is_broken(tmp_path):
    files = [save(tmp_path / f"{i}.png", np.full((32, 32), 20 * i, np.uint8)) for i in range(7)]
    marked = np.zeros((32, 32), np.uint8)
    marked[:8, 16:] = 255
    mask, wide = save(tmp_path / "mask.png", marked), save(tmp_path / "wide.png", scene(40, 90))
    files[3].write_bytes(b"")
    found = read_images(files, masks=[mask, None, tmp_path / "gone.png", mask, mask, wide, mask], size=16)
    np.testing.assert_array_equal(found.kept, [0, 1, 4, 6])
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], [0, 20, 80, 120])
    np.testing.assert_array_equal(found.brightest, [0, 20, 80, 120])
    small = np.kron(np.array([[0, 1], [0, 0], [0, 0], [0, 0]]), np.ones((4, 8), int))
    np.testing.assert_array_equal(found.masks, [small, 0 * small, small, small])
    assert found.masks.dtype == np.uint8
    assert dict(found.omitted["path"]) == {i: str(files[i]) for i in (2, 3, 5)}
    reasons = ["mask: no such file", "the file is empty (0 bytes)", "mask: the mask is 90 x 40, another shape"]
    assert [r[: len(w)] for r, w in zip(found.omitted["reason"], reasons, strict=True)] == reasons
    with pytest.raises(InputError, match="2 of 3 files cannot be read"):
        read_images(files[:3], masks=[mask, tmp_path / "gone.png", tmp_path / "gone.png"], size=16)


def test_interrupting_does_not_read_the_rest(tmp_path, monkeypatch):
    seen = []

    def interrupted(results, **_):
        for result in results:
            seen.append(result)
            raise KeyboardInterrupt
        yield

    monkeypatch.setattr(decoding, "track", interrupted)
    decoded = []
    plain = decode.decode_image
    monkeypatch.setattr(decoding, "MANY", 10**9)  # in this process, where it can be counted
    monkeypatch.setattr(decode, "decode_image", lambda *args, **options: decoded.append(1) or plain(*args, **options))
    paths = [save(tmp_path / "a.png", scene(300, 300))] * 4000
    with pytest.raises(KeyboardInterrupt):
        read_images(paths, size=16, channels=1)
    assert len(seen) == 1
    assert len(decoded) < 2000


@pytest.mark.realdata
def test_real_radiographs_are_what_pillow_alone_gives(real_data):
    paths = sorted((real_data / "kermany" / "PNEUMONIA").iterdir())[::80]
    found = read_images(paths, size=64)
    assert found.images.shape == (len(paths), 1, 64, 64)
    for path, pixels in zip(paths, found.images, strict=True):
        with Image.open(path) as stored:
            peer = np.asarray(stored.convert("L").resize((64, 64), Image.Resampling.BILINEAR), int)
        assert np.sqrt(np.mean((pixels[0] - peer) ** 2)) < 2


@pytest.mark.realdata
def test_real_lesion_masks_keep_their_area(real_data):
    paths = sorted((real_data / "ham10000" / "masks").iterdir())[::100]
    for path in paths:
        mask = read_mask(path, size=64, fit="stretch")
        with Image.open(path) as stored:
            share = (np.asarray(stored.convert("L")) > 127).mean()
        assert mask.mean() == pytest.approx(share, abs=0.01)
