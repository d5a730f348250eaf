"""Upscaling of people's pictures, file by file: what test.py --input does. Its options, which files are
taken, the names of their SR images, and the loop over them."""
import glob
import os
import sys
import time

from tools.command import UserError, positive
from tools.files import LONGEST_NAME
from tools.images import is_file, is_image_file
from tools.pictures.formats import (FORMATS, animation_format, compose, fit_format, read_frames, read_picture,
                                  save_images)
from tools.pictures.tiles import limited_notes

from PIL import Image
from tqdm import tqdm

PICTURE_ERRORS = UserError, OSError, ValueError, MemoryError  # what a picture can cause; the third by Pillow
STILL = [name for name in FORMATS if name != "gif"]     # formats of single pictures
SUFFIXES = {suffix: name for name in STILL for suffix in FORMATS[name].suffixes}


def add_picture_options(parser):
    """The options of test.py that are for pictures."""
    group = parser.add_argument_group("pictures without ground truth")
    group.add_argument("--input", nargs="+", type=os.path.expanduser, metavar="PATH",
                       help="upscale these image files, folders or patterns")
    group.add_argument("--format", choices=STILL, help="format of the SR images (default png)")
    group.add_argument("--quality", type=int, metavar="Q", help="of webp and jpeg, 1 to 100 (default 95)")
    group.add_argument("--frames", action="store_true", help="upscale all frames of animations, which become "
                       "the same kind of animation, GIF, PNG or WebP")
    group.add_argument("--strip", action="store_true", help="keep no EXIF data (author, date, place) or dpi")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace SR images that exist already")
    existing.add_argument("--skip-existing", action="store_true",
                          help="leave out pictures whose SR images exist already")
    group.add_argument("--max-megapixels", type=positive(float), default=100, metavar="MP",
                       help="refuse larger pictures, as decompression bombs are; inf: none (default 100)")


def check_pictures(parser, args):
    """End with a usage error unless the options of pictures go together. Sets args.format, and args.file: the
    name that --output gives to the SR of a single picture, or None."""
    args.file, models, scales = None, args.model or [], args.scale or []
    if args.input is None:
        for key in "format", "quality", "frames", "strip", "overwrite", "skip_existing", "max_megapixels":
            if getattr(args, key) != parser.get_default(key):
                parser.error("--%s goes with --input" % key.replace("_", "-"))
        return
    if args.dataset or args.csv or not args.output or len(models) > 1 or "all" in models:
        parser.error("--input needs --output, and goes with one --model, without --dataset and --csv")
    suffix = os.path.splitext(args.output)[1].lower()
    Image.init()
    if suffix in Image.EXTENSION and not os.path.isdir(args.output):
        if suffix not in SUFFIXES:
            parser.error("--output %s: SR images are written as %s: name one of these, or a folder" % (
                args.output, " ".join(SUFFIXES)))
        if (len(args.input) > 1 or os.path.isdir(args.input[0]) or len(scales) > 1 or "all" in scales
                or args.format not in (None, SUFFIXES[suffix]) or args.frames):
            parser.error("--output %s names one file: give one picture and one --scale, without --frames and "
                         "another --format, or a folder" % args.output)
        args.file, args.format = args.output, SUFFIXES[suffix]
        args.output = os.path.dirname(args.file) or "."
    args.format = args.format or "png"
    if args.quality is not None and (args.format == "png" or not 1 <= args.quality <= 100):
        parser.error("--quality is from 1 to 100, and goes with --format webp or jpeg")


def find_pictures(inputs, output):
    """The image files that test.py --input names, each once: (paths, lines that say what was not found).

    Of folders and patterns, files with the suffix of an image format are taken, without hidden ones;
    subfolders are not searched; a note names what is left out. Raises UserError if the SR images would be put
    among their inputs, where the next run would find them.
    """
    Image.init()  # .mpo is opened by the plugin of JPEG; other suffixes are only written
    suffixes = [suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN or suffix == ".mpo"]
    paths, errors = {}, []
    for name in inputs:
        if is_file(name):
            paths[os.path.abspath(name)] = name
            continue
        folder = name if os.path.isdir(name) else os.path.dirname(name)
        try:
            found = ([os.path.join(name, entry) for entry in os.listdir(name)] if folder == name
                     else glob.glob(name))
        except OSError as error:
            errors.append("cannot read the folder %s: %s" % (name, error.strerror))
            continue
        found = sorted(path for path in found if not os.path.basename(path).startswith("."))
        if found and os.path.realpath(folder or ".") == os.path.realpath(output):
            raise UserError("--output %s is the folder of the input: choose another" % output)
        pictures = [path for path in found if is_image_file(path, suffixes)]
        others = [os.path.basename(path) for path in found if not is_image_file(path, suffixes)]
        left_out = "left out, being no image files that are read: %s" % " ".join(
            others[:5] + ["and %d more" % (len(others) - 5)] * (len(others) > 5)) if others else ""
        if not pictures:
            reason = "standard input and URLs are not read" if name == "-" or "://" in name else left_out
            errors.append("no image at %s%s" % (name, reason and ": " + reason))
        elif left_out:
            print("note: %s: %s" % (name, left_out), file=sys.stderr)
        paths.update((os.path.abspath(path), path) for path in pictures)
    return list(paths.values()), errors


def name_stems(paths):
    """{path: its name without the suffix}; of files of one name, their folders are before it, as far as they
    differ: frame1 or, of shot1/frame1.png and shot2/frame1.png, shot1_frame1."""
    groups, stems = {}, {}
    for path in paths:
        groups.setdefault(os.path.basename(path), []).append(path)
    for group in groups.values():
        parts = [os.path.splitext(os.path.abspath(path))[0].split(os.sep) for path in group]
        shared = len(os.path.commonprefix(parts)) if len(group) > 1 else -1
        stems.update((path, "_".join(words[shared:])) for path, words in zip(group, parts))
    return stems


def name_outputs(paths, scale, args):
    """{path of SR: path of LR}. Of two pictures whose names differ in the suffix alone, the second keeps it.
    Raises UserError if two would get one name all the same, or one that of another's LR."""
    inputs, stems = {os.path.realpath(path) for path in paths}, name_stems(paths)
    outputs = {}
    for path in paths:
        end = "%s.%s" % (scale, args.frames and animation_format(path) or args.format)
        output = args.file or os.path.join(args.output, "%s_%s" % (stems[path], end))
        if output in outputs:
            suffix = os.path.splitext(path)[1][1:]
            output = os.path.join(args.output, "%s_%s_%s" % (stems[path], suffix, end))
        if output in outputs:
            raise UserError("%s and %s would both become %s" % (outputs[output], path, output))
        if os.path.realpath(output) in inputs:
            raise UserError("%s would become %s, which is an input, too" % (path, output))
        outputs[output] = path
    return outputs


def upscale_file(upscaler, path, output, args):
    """Upscale an image file, with args.frames all frames of an animation, and write it: ((height, width) of
    LR, count of frames, notes). Raises what is PICTURE_ERRORS."""
    base = os.path.basename(output)
    if len(os.fsencode(base)) > LONGEST_NAME:
        raise UserError("%s would become %s, a name of more than %d bytes: rename it" % (
            path, base, LONGEST_NAME))
    if os.path.exists(output) and not args.overwrite:
        raise UserError("%s exists already: add --overwrite or --skip-existing" % output)
    animation, name, factor = None, args.frames and animation_format(path), upscaler.factor
    if name:
        animation = read_frames(path, args.max_megapixels)
        pictures, notes = animation.pictures, ["all %d frames" % len(animation.pictures)]
    else:
        name, pictures = args.format, [fit_format(read_picture(path, args.max_megapixels), args.format)]
        notes = list(pictures[0].notes)
    height, width = pictures[0].color.shape[:2]
    if factor * max(height, width) > FORMATS[name].side:
        raise UserError("%s would have %dx%d pixels, and %s holds %d a side" % (
            output, factor * width, factor * height, name, FORMATS[name].side))
    composed = []
    for picture in pictures:
        store = upscaler(picture.color)
        notes += [note for note in limited_notes(store) if note not in notes]
        composed.append(compose(store, picture, factor))
    notes += save_images(output, name, composed, pictures, factor, args, animation)
    return (height, width), len(pictures), notes


def upscale_files(upscaler, jobs, args):
    """Upscale pictures, [(path, output)], with a line and notes for each; returns how many failed."""
    failed, factor = 0, upscaler.factor
    for path, output in tqdm(jobs, unit="picture", leave=False, disable=None):
        before = time.time()
        try:
            (height, width), frames, notes = upscale_file(upscaler, path, output, args)
        except PICTURE_ERRORS as error:
            failed += 1
            text = str(error) or "not enough memory"
            named = text if path in text or output in text else "%s: %s" % (path, text)
            tqdm.write("error: %s" % named, file=sys.stderr)
            continue
        for note in notes:
            tqdm.write("note: %s: %s" % (path, note), file=sys.stderr)
        seconds = time.time() - before
        tqdm.write("%-20s %dx%d -> %s %dx%d, %.1f s, %.2f megapixels/s" % (
            path, width, height, output, factor * width, factor * height, seconds,
            frames * factor ** 2 * width * height / 1e6 / seconds))
    return failed


def upscale_pictures(args, scales, open_upscaler):
    """Upscale the pictures that args.input names into args.output; returns the exit status, 1 if any failed.

    scales: keys of SCALES. open_upscaler(scale): a context with an Upscaler, which prints what the network
    is; it may raise UserError.
    """
    paths, errors = find_pictures(args.input, args.output)
    named = [(scale, name_outputs(paths, scale, args)) for scale in scales]
    for error in errors:
        print("error: %s" % error, file=sys.stderr)
    total, failed, skipped, before = len(errors), len(errors), 0, time.time()
    for scale, outputs in named:
        jobs = [(path, output) for output, path in outputs.items()
                if not (args.skip_existing and os.path.exists(output))]
        total, skipped = total + len(outputs), skipped + len(outputs) - len(jobs)
        if not jobs:
            continue
        try:
            with open_upscaler(scale) as upscaler:
                failed += upscale_files(upscaler, jobs, args)
        except UserError as error:
            failed += len(jobs)
            print("error: %s" % error, file=sys.stderr)
    print("%d of %d pictures in %.1f s%s" % (total - failed - skipped, total, time.time() - before,
                                             ", %d were there" % skipped if skipped else ""))
    return 1 if failed else 0
