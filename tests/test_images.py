"""Image files of any kind as arrays, against the samples that were written and other libraries' readings."""
import io
import itertools
import struct
import zlib

from tools import images, tiff
from tools.command import UserError
from utils import read_image

import numpy as np
import png
import pytest
import skimage.data
import tifffile
from PIL import Image, PngImagePlugin

random = np.random.RandomState(11)


def write_tiff(array, photometric, **options):
    """An in-memory TIFF file by tifffile, of whose versions one calls the compression otherwise."""
    file = io.BytesIO()
    if options.get("predictor"):
        options.update({"compress": 6} if tifffile.__version__ < "2021" else {"compression": "zlib"})
    tifffile.imwrite(file, array, photometric=photometric, **options)
    file.seek(0)
    return file


def write_pages(pages, **options):
    """An in-memory TIFF file of pages, [(array, options)]."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        for array, more in pages:
            getattr(writer, "write", getattr(writer, "save", None))(array, **more)
    return file


def decode(file):
    """The Picture of a file, from its start."""
    file = io.BytesIO(file) if isinstance(file, bytes) else file
    file.seek(0)
    return images.decode(file)


# type: largest value
TYPES = {"u1": 255, "u2": 65535, "u4": 65535, "i1": 127, "i2": 32767, "i4": 65535, "f2": 1, "f4": 1, "f8": 1}
# photometric: samples
KINDS = {"miniswhite": 1, "minisblack": 1, "rgb": 3, "gray with alpha": 2, "rgb with alpha": 4}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", list(TYPES))
def test_tiff_of_any_depth_photometric_planes_and_predictor(dtype, kind):
    """What is read is what tifffile reads, scaled to 8 or 16 bits, and inverted where white is 0."""
    channels, top, alpha = KINDS[kind], 255 if dtype in ("u1", "i1") else 65535, "alpha" in kind
    values = random.rand(6, 16, channels) * TYPES[dtype]
    values = values.astype(dtype) if dtype[0] == "f" else np.floor(values).astype(dtype)
    # of floating point, tifffile writes a predictor only with another package
    for planar, predictor in itertools.product(("contig", "separate")[:1 + (channels > 1)],
                                               (False, True)[:1 + (dtype[0] != "f")]):
        options = {"extrasamples": ["unassalpha"]} if alpha else {}
        options.update({"planarconfig": planar} if channels > 1 else {},
                       **({"predictor": True} if predictor else {}))
        array = values if planar == "contig" else np.moveaxis(values, 2, 0)
        photometric = {"gray with alpha": "minisblack", "rgb with alpha": "rgb"}.get(kind, kind)
        file = write_tiff(array[:, :, 0] if channels == 1 else array, photometric, **options)
        theirs = tifffile.imread(file).astype(np.float64)
        theirs = np.moveaxis(theirs, 0, 2) if planar == "separate" else theirs.reshape(6, 16, channels)
        expected = np.floor(theirs * 65535 + 0.5) if dtype[0] == "f" else theirs
        color = expected[:, :, :channels - alpha]
        color = top - color if kind == "miniswhite" else color
        picture = decode(file)
        assert picture.color.dtype == (np.uint8 if top == 255 else np.uint16) and picture.notes == []
        np.testing.assert_array_equal(picture.color, color)
        assert (picture.alpha == expected[:, :, -1]).all() if alpha else picture.alpha is None
        file.seek(0)
        assert (read_image(file, "a") == np.floor(color * 255 / top + 0.5)).all()


def test_tiff_of_one_bit_palettes_cmyk_multiplied_alpha_and_64_bit_offsets():
    bits = random.randint(0, 2, (6, 16)).astype(bool)
    for kind, expected in ("minisblack", bits), ("miniswhite", ~bits):
        assert (decode(write_tiff(bits, kind)).color[:, :, 0] == 255 * expected).all()
    index = random.randint(0, 256, (6, 16)).astype(np.uint8)
    colors = random.randint(0, 65536, (3, 256)).astype(np.uint16)
    color = decode(write_tiff(index, "palette", colormap=colors)).color
    assert (color == colors[:, index].transpose(1, 2, 0) >> 8).all()
    cmyk = random.randint(0, 256, (6, 16, 4)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB"))
    for array in cmyk, cmyk.astype(np.uint16) * 257:
        assert (decode(write_tiff(array, "separated", planarconfig="contig")).color == expected).all()
    rgb, alpha = random.randint(0, 65536, (6, 16, 3)), random.randint(40000, 65536, (6, 16, 1))
    array = np.concatenate([np.round(rgb * (alpha / 65535.0)), alpha], axis=2).astype(np.uint16)
    picture = decode(write_tiff(array, "rgb", extrasamples=["assocalpha"]))
    assert np.abs(picture.color - rgb).max() <= 1 and (picture.alpha == alpha[:, :, 0]).all()
    big = write_pages([(rgb.astype(np.uint8), {"photometric": "rgb"})], bigtiff=True)
    assert (decode(big).color == rgb.astype(np.uint8)).all()


def test_tiff_that_tifffile_cannot_decode(monkeypatch, tmp_path):
    """Pillow has the compressions of libtiff, and two halves of 16-bit color."""
    path, real = str(tmp_path / "a.tif"), random.rand(6, 16).astype(np.float32)
    if int(Image.__version__.split(".")[0]) > 8:  # an older one does not write this predictor
        Image.fromarray(real).save(path, compression="tiff_adobe_deflate", tiffinfo={317: 3})
        assert (images.decode(path).color[:, :, 0] == np.floor(real.astype(np.float64) * 65535 + 0.5)).all()
    gray = random.randint(0, 65536, (6, 16)).astype(np.uint16)
    Image.fromarray(gray).save(path, compression="tiff_lzw", tiffinfo={317: 2})
    assert (images.decode(path).color[:, :, 0] == gray).all()
    monkeypatch.setattr(tiff, "first_page", lambda stream: None)
    for channels, order, predictor in itertools.product((3, 4), "<>", (False, True)):
        deep = random.randint(0, 65536, (6, 16, channels)).astype(np.uint16)
        if predictor and order == ">" and tifffile.__version__ < "2021":
            continue  # it writes another difference
        options = dict({"predictor": True} if predictor else {},
                       **({"extrasamples": ["unassalpha"]} if channels == 4 else {}))
        picture = decode(write_tiff(deep, "rgb", byteorder=order, **options))
        assert (picture.color == deep[:, :, :3]).all() and picture.notes == []
        assert (picture.alpha == deep[:, :, 3]).all() if channels == 4 else picture.alpha is None


@pytest.mark.parametrize("values, message", [
    (np.uint32([[0, 70000]]), "its values reach from 0 to 70000, expected from 0 to 65535"),
    (np.int16([[-5, 7]]), "its values reach from -5 to 7, expected from 0 to 65535"),
    (np.float32([[0, 7]]), "its values reach from 0 to 7, expected from 0 to 1"),
    (np.float64([[0, np.nan]]), "1 of its 2 values are NaN")])
def test_values_without_a_brightness(values, message, tmp_path):
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, values, photometric="minisblack")
    with pytest.raises(UserError, match="^cannot read the image %s: %s" % (path, message)):
        read_image(path)


def write_png(samples, **options):
    """An in-memory PNG file of 16 bits by pypng."""
    height, width, channels = samples.shape
    file = io.BytesIO()
    writer = png.Writer(width, height, greyscale=channels < 3, alpha=channels % 2 == 0, bitdepth=16,
                        **options)
    writer.write(file, samples.reshape(height, -1).tolist())
    return file


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits(channels, interlace):
    samples = random.randint(0, 65536, (9, 13, channels)).astype(np.uint16)
    picture = decode(write_png(samples, interlace=interlace))
    assert picture.color.dtype == np.uint16 and picture.notes == []
    assert (picture.color == samples[:, :, :1 if channels < 3 else 3]).all()
    assert (picture.alpha == samples[:, :, -1]).all() if channels % 2 == 0 else picture.alpha is None


def add_chunk(data, name, content):
    """PNG data with a chunk behind its header."""
    return data[:33] + struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content) & 0xffffffff) + data[33:]


def test_transparent_color():
    for bits, values in [(1, [0, 1, 1, 0]), (4, [0, 7, 15, 7]), (8, [0, 9, 255, 9]), (16, [0, 9, 65535, 3])]:
        file, key, top = io.BytesIO(), values[1], 65535 if bits == 16 else 255
        png.Writer(4, 1, greyscale=True, bitdepth=bits, transparent=key).write(file, [values])
        picture = decode(file)
        assert picture.color.ravel().tolist() == [value * top // (2 ** bits - 1) for value in values]
        assert picture.alpha.ravel().tolist() == [0 if value == key else top for value in values]
    samples = random.randint(0, 65536, (3, 4, 3)).astype(np.uint16)
    picture = decode(write_png(samples, transparent=tuple(samples[1, 2].tolist())))
    assert (picture.color == samples).all() and np.argwhere(picture.alpha == 0).tolist() == [[1, 2]]


def test_png_with_much_text(tmp_path):
    rgb, path = random.randint(0, 256, (3, 4, 3)).astype(np.uint8), str(tmp_path / "a.png")
    for count in 1200000, 12000000:
        text = PngImagePlugin.PngInfo()
        text.add_text("p", "A B C " * count, zip=True)
        Image.fromarray(rgb).save(path, pnginfo=text)
        if count == 1200000:
            assert (read_image(path) == rgb).all()
            continue
        with pytest.raises(UserError, match="a.png: its compressed text or profile has more than 64 MiB"):
            read_image(path)


# what is changed or left out is said

@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_pages_of_tiff(dtype):
    """Copies in fewer pixels are no pages, and of a large stack ImageJ writes the first page alone."""
    pages = (random.rand(3, 6, 16) * 255 * 257).astype(dtype)
    for options in {}, {"imagej": True}:
        assert decode(write_tiff(pages, "minisblack", **options)).notes == ["the first of 3 pages"]
    stack = write_tiff(pages[0], "minisblack", description="ImageJ=1.53\nimages=40\nslices=40\n",
                       metadata=None)
    assert decode(stack).notes == ["the first of 40 pages"]
    reduced = [(page, {"photometric": "minisblack", "subfiletype": kind})
               for page, kind in ((pages[0], 0), (pages[1, ::2, ::2], 1))]
    assert decode(write_pages(reduced)).notes == []


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_channels_of_tiff_that_are_neither_color_nor_alpha(dtype):
    for channels, used in (2, 1), (4, 3), (5, 1):
        samples = (random.rand(6, 16, channels) * 255 * 257).astype(dtype)
        for planar, array in ("contig", samples), ("separate", np.moveaxis(samples, 2, 0)):
            file = write_tiff(array, "rgb" if used == 3 else "minisblack", planarconfig=planar,
                              extrasamples=["unspecified"] * (channels - used))
            picture = decode(file)
            assert picture.alpha is None and (picture.color == samples[:, :, :used]).all()
            assert picture.notes[0].startswith("%d of its %d channels: " % (used, channels))


def test_a_preview_is_no_picture():
    """Of DNG and the like, which TIFF's first page is one of."""
    for options in {"subfiletype": 1}, {"extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}:
        file = write_pages([(np.zeros((size, size, 3), np.uint8), dict(more, photometric="rgb"))
                            for size, more in ((4, options), (9, {}))])
        with pytest.raises(ValueError, match="^it is a camera raw file .* that begins with a preview"):
            decode(file)


@pytest.mark.parametrize("top, noted", [(255, "0.4"), (4095, "6"), (4096, None), (0, None)])
def test_fewer_bits_than_the_file_has(top, noted):
    samples = np.arange(256).reshape(16, 16, 1) * top // 255
    for file in write_png(samples), write_tiff(samples[:, :, 0].astype(np.int32), "minisblack"):
        notes = decode(file).notes
        assert "its brightest value is %s %% of white" % noted in notes[0] if noted else notes == []


def photograph_as_jpeg(**options):
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()[40:88, 180:244]).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 20}])
def test_jpeg_without_its_end(options, tmp_path):
    """As long as all rows are there: some bytes less of them are an error, in data sets, too."""
    data, path = photograph_as_jpeg(**options), tmp_path / "a.jpg"
    for missing in 1, 2:
        picture = decode(data[:-missing])
        assert (picture.color == decode(data).color).all()
        assert picture.notes == ["its end is missing, but all rows are there"]
    scan = len(data) - data.rindex(b"\xff\xda")  # the last one
    for missing, rows in (8, "3[23]"), (scan // 2, "(1|1[67]|3[23])"):
        path.write_bytes(data[:-missing])
        message = "it ends in row %s of 48$" % rows if not options.get("progressive") else ""
        with pytest.raises(UserError, match="a.jpg: .*truncated.*" + message):
            read_image(str(path))


def test_colors_of_png_that_are_not_heeded():
    data = io.BytesIO()
    Image.new("RGB", (3, 2)).save(data, "PNG")
    for name, content, notes in [
            (b"cICP", bytes([9, 16, 0, 1]), ["its color space (cICP 9 16) is taken for sRGB"]),
            (b"cICP", bytes([1, 13, 0, 1]), []), (b"gAMA", struct.pack(">I", 45455), []),
            (b"gAMA", struct.pack(">I", 100000), ["its gamma of 1 is taken for that of sRGB"])]:
        assert decode(add_chunk(data.getvalue(), name, content)).notes == notes


def test_what_is_not_kept_is_known():
    rgb, text, xmp = Image.new("RGB", (3, 2)), PngImagePlugin.PngInfo(), "<x:xmpmeta/>"
    text.add_text("parameters", "Steps: 20")
    text.add_itxt("XML:com.adobe.xmp", xmp)
    jpeg = photograph_as_jpeg()
    marker = b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
    photoshop = b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\0"
    for segment, content in (0xE1, marker), (0xFE, b"shot by me"), (0xED, photoshop):
        jpeg = jpeg[:2] + struct.pack(">BBH", 255, segment, len(content) + 2) + content + jpeg[2:]
    png_file = io.BytesIO()
    rgb.save(png_file, "PNG", pnginfo=text)
    tiff = write_tiff(np.zeros((2, 3), np.uint16), "minisblack",
                      extratags=[(700, "B", len(xmp), xmp.encode(), True)])
    for file, unkept in ((png_file, ("text", "XMP data")), (jpeg, ("XMP data", "a comment", "IPTC data")),
                         (tiff, ("XMP data",)), (photograph_as_jpeg(), ())):
        assert decode(file).unkept == unkept


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "deep tiff", "tiff"])
def test_orientation(orientation, kind, tmp_path):
    """Pixels as Pillow turns them, of data sets, too."""
    image = random.randint(0, 256, (8, 16, 3 if kind == "jpeg" else 4)).astype(np.uint8)
    path, exif = str(tmp_path / "a"), Image.Exif()
    exif[274] = orientation
    if kind == "deep tiff":
        tifffile.imwrite(path, image.astype(np.uint16) * 257, photometric="rgb", extrasamples=["unassalpha"],
                         extratags=[(274, "H", 1, orientation, True)])
    else:
        Image.fromarray(image).save(path, format=kind, exif=exif if kind == "tiff" else exif.tobytes())
        with Image.open(path) as opened:
            image = np.array(opened) if kind == "jpeg" else image
    method = [None, Image.FLIP_LEFT_RIGHT, Image.ROTATE_180, Image.FLIP_TOP_BOTTOM, Image.TRANSPOSE,
              Image.ROTATE_270, Image.TRANSVERSE, Image.ROTATE_90][orientation - 1]
    expected = Image.fromarray(image) if method is None else Image.fromarray(image).transpose(method)
    assert (read_image(path) == np.asarray(expected)[:, :, :3]).all()
    alpha = images.decode(path).alpha
    expected = np.asarray(expected)[:, :, 3:].astype(int) * (257 if kind == "deep tiff" else 1)
    assert alpha is None if kind == "jpeg" else (alpha == expected[:, :, 0]).all()
