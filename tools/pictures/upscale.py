"""Upscaling of people's pictures, file by file: what test.py --input does, and its options."""
import collections
import concurrent.futures
import contextlib
import functools
import os
import sys
import time

from tools.command import UserError, positive
from tools.files import LONGEST_NAME
from tools.pictures.read import animation_suffix, find_pictures, picture_size, read_frames, read_picture
from tools.pictures.tiles import limited_notes
from tools.pictures.write import (FORMATS, LARGEST_SIDE, SUFFIX_FORMATS, compose, fit_format, save_animation,
                                  save_picture)

from PIL import Image
from tqdm import tqdm

EXPECTED = UserError, OSError, ValueError, MemoryError  # what a picture can cause; the third by Pillow


def add_picture_options(parser):
    """The options of test.py that are for pictures."""
    group = parser.add_argument_group("pictures without ground truth")
    group.add_argument("--input", nargs="+", type=os.path.expanduser, metavar="PATH",
                       help="upscale these image files, folders or patterns")
    group.add_argument("--format", choices=list(FORMATS), help="format of the SR images (default png)")
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
    """End with a usage error unless the options of pictures go together; sets args.format, and args.file: the
    name that --output gives to the SR image of a single picture, or None."""
    args.file, models, scales = None, args.model or [], args.scale or []
    if args.input is None:
        for key in "format", "quality", "frames", "strip", "overwrite", "skip_existing", "max_megapixels":
            if getattr(args, key) != parser.get_default(key):
                parser.error("--%s goes with --input" % key.replace("_", "-"))
        return
    if args.dataset or args.csv:
        parser.error("--input goes without --dataset and --csv")
    if not args.output:
        parser.error("--input needs --output")
    if len(models) > 1 or "all" in models:
        parser.error("--input goes with one --model")
    suffix = os.path.splitext(args.output)[1].lower()
    Image.init()
    if suffix in Image.EXTENSION and not os.path.isdir(args.output):
        if suffix not in SUFFIX_FORMATS:
            parser.error("--output %s: SR images are written as %s: name one of these, or a folder" % (
                args.output, " ".join(SUFFIX_FORMATS)))
        if len(args.input) > 1 or os.path.isdir(args.input[0]) or len(scales) > 1 or "all" in scales:
            parser.error("--output %s names one file: give one picture and one --scale, or a folder"
                         % args.output)
        if args.format not in (None, SUFFIX_FORMATS[suffix]) or args.frames:
            parser.error("--output %s goes without --frames and another --format: give a folder"
                         % args.output)
        args.file, args.format = args.output, SUFFIX_FORMATS[suffix]
        args.output = os.path.dirname(args.file) or "."
    args.format = args.format or "png"
    if args.quality is not None and not 1 <= args.quality <= 100:
        parser.error("--quality is from 1 to 100")
    if args.quality is not None and args.format == "png":
        parser.error("--quality goes with --format webp or jpeg")


def name_stems(paths):
    """{path: its name without the suffix}; where several files have one name, their folders are before it, as
    far as these differ: frame1 or, of shot1/frame1.png and shot2/frame1.png, shot1_frame1."""
    groups, stems = {}, {}
    for path in paths:
        groups.setdefault(os.path.basename(path), []).append(path)
    for group in groups.values():
        parts = [os.path.splitext(os.path.abspath(path))[0].split(os.sep) for path in group]
        shared = len(os.path.commonprefix(parts)) if len(group) > 1 else -1
        stems.update((path, "_".join(words[shared:])) for path, words in zip(group, parts))
    return stems


def name_outputs(paths, scale, args):
    """{path of SR: path of LR}. Of two pictures whose names differ in the suffix alone, the second's keeps
    it.

    args.file: the name of the SR image, if there is one alone and a name for it, or None. Raises UserError if
    two pictures would get one name all the same, or one that of another's LR.
    """
    inputs, stems = {os.path.realpath(path) for path in paths}, name_stems(paths)
    outputs = collections.OrderedDict()
    for path in paths:
        end = "%s.%s" % (scale, args.frames and animation_suffix(path) or args.format)
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


def check_output(path, output, overwrite):
    """Raise UserError if the SR image of a file cannot be written as `output`."""
    name = os.path.basename(output)
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UserError("%s would become %s, a name of more than %d bytes: rename it" % (
            path, name, LONGEST_NAME))
    if os.path.exists(output) and not overwrite:
        raise UserError("%s exists already: add --overwrite or --skip-existing" % output)


def check_sides(output, picture, factor):
    """Raise UserError if the SR image of a Picture is larger than its format holds."""
    height, width = (factor * side for side in picture.color.shape[:2])
    suffix = os.path.splitext(output)[1].lower()
    name = SUFFIX_FORMATS.get(suffix, suffix[1:])
    if max(height, width) > LARGEST_SIDE[name]:
        raise UserError("%s would have %dx%d pixels, and %s holds %d a side" % (
            output, width, height, name, LARGEST_SIDE[name]))


def begin(upscaler, path, output, args, network):
    """Read an image file, or all frames of an animation with args.frames, and have the thread `network`
    upscale it. Returns a function that waits for that and writes SR: () -> ((height, width) of LR, count of
    frames, notes).

    Both raise what is EXPECTED.
    """
    check_output(path, output, args.overwrite)
    suffix = args.frames and animation_suffix(path)
    if suffix:
        animation = read_frames(path, args.max_megapixels)
        check_sides(output, animation.pictures[0], upscaler.factor)
        return functools.partial(write_animation, upscaler, animation, output, suffix, args)
    picture = fit_format(read_picture(path, args.max_megapixels), args.format)
    check_sides(output, picture, upscaler.factor)
    sr = network.submit(upscaler, picture.color)
    return functools.partial(write_picture, sr, picture, output, upscaler.factor, args)


def write_picture(sr, picture, output, factor, args):
    """Write the SR image of a Picture; sr: of its Store, a Future."""
    store = sr.result()
    notes = save_picture(output, compose(store, picture, factor), picture, factor, args)
    return picture.color.shape[:2], 1, picture.notes + limited_notes(store) + notes


def write_animation(upscaler, animation, output, suffix, args):
    """Upscale and write the frames of an Animation one after the other."""
    pictures = animation.pictures
    notes = ["all %d frames" % len(pictures)]

    def frames():
        for picture in pictures:
            store = upscaler(picture.color)
            notes.extend(note for note in limited_notes(store) if note not in notes)
            yield compose(store, picture, upscaler.factor)

    notes += save_animation(output, frames(), animation, suffix, upscaler.factor, args)
    return pictures[0].color.shape[:2], len(pictures), notes


class Pictures(object):
    """Upscales pictures in turn, with a line and notes for each: while one is in the network, the last one is
    written and the next one is read. A picture that would take too much memory for that, and an animation,
    has the network for itself.

    done, failed: how many pictures.
    """

    def __init__(self, upscaler, args, network):
        """network: the thread that the network is run in, of concurrent.futures."""
        self.upscaler, self.args, self.network = upscaler, args, network
        self.room, self.before = upscaler.leave_room(), time.time()
        self.done = self.failed = 0
        self.waiting = None  # (path, output, what begin() returned)

    def add(self, path, output):
        """Read a picture, and write the one before."""
        alone = self._bytes_held(path) > self.room
        if alone:
            self.finish()
        try:
            began = begin(self.upscaler, path, output, self.args, self.network)
        except EXPECTED as error:
            self.finish()
            self._fail(path, output, error)
            return
        self.finish()
        self.waiting = path, output, began
        if alone:
            self.finish()

    def finish(self):
        """Write the picture that is waiting, if one is."""
        if self.waiting:
            (path, output, began), self.waiting = self.waiting, None
            try:
                self._report(path, output, *began())
            except EXPECTED as error:
                self._fail(path, output, error)

    def _bytes_held(self, path):
        """The most bytes that a picture takes besides the network: float32 SR, four channels of 16 bits of
        it, and LR. Infinite for an animation whose frames are all wanted, and for a file that does not tell
        its size."""
        size = picture_size(path, self.args.frames)
        return 24 * self.upscaler.factor ** 2 * size[0] * size[1] if size else float("inf")

    def _report(self, path, output, shape, frames, notes):
        for note in notes:
            tqdm.write("note: %s: %s" % (path, note), file=sys.stderr)
        (height, width), factor, seconds = shape, self.upscaler.factor, self._lap()
        self.done += 1
        tqdm.write("%-20s %dx%d -> %s %dx%d, %.1f s, %.2f megapixels/s" % (
            path, width, height, output, factor * width, factor * height, seconds,
            frames * factor * width * factor * height / 1e6 / seconds))

    def _fail(self, path, output, error):
        self._lap()
        self.failed += 1
        text = str(error) or "not enough memory"
        tqdm.write("error: %s" % (
            text if path in text or output in text else "%s: %s" % (path, text)), file=sys.stderr)

    def _lap(self):
        """Seconds since the last picture was done."""
        last, self.before = self.before, time.time()
        return self.before - last


def upscale_all(upscaler, jobs, args):
    """Upscale pictures, [(path, output)]; returns their Pictures."""
    with concurrent.futures.ThreadPoolExecutor(1) as network:
        pictures = Pictures(upscaler, args, network)
        try:
            for path, output in tqdm(jobs, unit="picture", leave=False, disable=None):
                pictures.add(path, output)
            pictures.finish()
        except BaseException:  # Ctrl-C, say: the thread would go on until its picture is done
            upscaler.stop()
            raise
    return pictures


def upscale(args, scales, open_upscaler):
    """Upscale the pictures that args.input names into args.output; returns the exit status, 1 if any failed.

    scales: keys of SCALES. open_upscaler(scale): a context with an Upscaler, which prints what the network
    is; it may raise UserError.
    """
    paths, errors = find_pictures(args.input, args.output)
    named = [(scale, name_outputs(paths, scale, args)) for scale in scales]
    for error in errors:
        print("error: %s" % error, file=sys.stderr)
    done, failed, skipped, before = 0, len(errors), 0, time.time()
    for scale, outputs in named:
        jobs = [(path, output) for output, path in outputs.items()
                if not (args.skip_existing and os.path.exists(output))]
        skipped += len(outputs) - len(jobs)
        if not jobs:
            continue
        with contextlib.ExitStack() as stack:
            try:
                upscaler = stack.enter_context(open_upscaler(scale))
            except UserError as error:
                failed += len(jobs)
                print("error: %s" % error, file=sys.stderr)
                continue
            pictures = upscale_all(upscaler, jobs, args)
        done, failed = done + pictures.done, failed + pictures.failed
    print("%d of %d pictures in %.1f s%s" % (done, done + failed + skipped, time.time() - before,
                                             ", %d were there" % skipped if skipped else ""))
    return 1 if failed else 0
