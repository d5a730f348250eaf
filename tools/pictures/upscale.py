"""Upscaling of people's pictures, file by file: what test.py --input does, once the options are read."""
import collections
import concurrent.futures
import contextlib
import functools
import os
import sys
import time

from tools.command import UserError
from tools.files import LONGEST_NAME
from tools.pictures.files import animation_suffix, find_pictures, picture_size, read_frames, read_picture
from tools.pictures.tiles import limited_notes
from tools.pictures.write import LARGEST_SIDE, SUFFIX_FORMATS, compose, fit_format, save_animation, save_picture

from tqdm import tqdm

EXPECTED = UserError, OSError, MemoryError  # what a picture can cause


def name_stems(paths):
    """{path: its name without the suffix}; where several files have one name, their folders are before it, as far as these
    differ: frame1 or, of shot1/frame1.png and shot2/frame1.png, shot1_frame1."""
    groups, stems = {}, {}
    for path in paths:
        groups.setdefault(os.path.basename(path), []).append(path)
    for group in groups.values():
        parts = [os.path.splitext(os.path.splitdrive(os.path.abspath(path))[1])[0].split(os.sep) for path in group]
        shared = len(os.path.commonprefix(parts)) if len(group) > 1 else -1
        stems.update((path, "_".join(words[shared:])) for path, words in zip(group, parts))
    return stems


def name_outputs(paths, scale, args):
    """{path of SR: path of LR}. Of two pictures whose names differ in the suffix alone, the second's keeps it; see
    name_stems, too.

    args.file: the name of the SR image, if there is one alone and a name for it, or None. Raises UserError if two pictures
    would get one name all the same, or one that of another's LR.
    """
    outputs, inputs, stems = collections.OrderedDict(), {os.path.realpath(path) for path in paths}, name_stems(paths)
    for path in paths:
        suffix = os.path.splitext(path)[1]
        end = "%s.%s" % (scale, args.frames and animation_suffix(path) or args.format)
        output = args.file or os.path.join(args.output, "%s_%s" % (stems[path], end))
        if output in outputs and not args.file:
            output = os.path.join(args.output, "%s_%s_%s" % (stems[path], suffix[1:], end))
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
        raise UserError("%s would become %s, a name of more than %d bytes: rename it" % (path, name, LONGEST_NAME))
    if os.path.exists(output) and not overwrite:
        raise UserError("%s exists already: add --overwrite or --skip-existing" % output)


def check_sides(output, picture, factor):
    """Raise UserError if the SR image of a Picture is larger than its format holds."""
    height, width = picture.color.shape[:2]
    suffix = os.path.splitext(output)[1].lower()
    name = SUFFIX_FORMATS.get(suffix, suffix[1:])
    if factor * max(height, width) > LARGEST_SIDE[name]:
        raise UserError("%s would have %dx%d pixels, and %s holds %d a side" % (
            output, factor * width, factor * height, name, LARGEST_SIDE[name]))


def begin(upscaler, path, output, args, network):
    """Read an image file, or all frames of an animation with args.frames, and have the thread `network` upscale it. Returns a
    function that waits for that and writes SR: () -> ((height, width) of LR, count of frames, notes).

    Both raise UserError, OSError or MemoryError.
    """
    check_output(path, output, args.overwrite)
    suffix = args.frames and animation_suffix(path)
    if suffix:
        animation = read_frames(path, args.max_megapixels)
        check_sides(output, animation.pictures[0], upscaler.factor)
        return functools.partial(write_animation, upscaler, animation, output, suffix, args)
    picture = fit_format(read_picture(path, args.max_megapixels), args.format)
    check_sides(output, picture, upscaler.factor)
    return functools.partial(write_picture, network.submit(upscaler, picture.color), picture, output, upscaler.factor, args)


def write_picture(sr, picture, output, factor, args):
    """Write the SR image of a Picture; sr: of its Store, a Future."""
    notes = save_picture(output, compose(sr.result(), picture, factor), picture, factor, args)
    return picture.color.shape[:2], 1, picture.notes + notes


def write_animation(upscaler, animation, output, suffix, args):
    """Upscale and write the frames of an Animation one after the other."""
    pictures = animation.pictures
    frames = (compose(upscaler(picture.color), picture, upscaler.factor) for picture in pictures)
    notes = save_animation(output, frames, animation, suffix, upscaler.factor, args)
    return pictures[0].color.shape[:2], len(pictures), ["all %d frames" % len(pictures)] + notes


class Pictures(object):
    """Upscales pictures in turn, with a line and notes for each: while one is in the network, the last one is written and the next
    one is read. A picture that would take too much memory for that, and an animation, has the network for itself.

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
            self._fail(path, error)
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
                self._fail(path, error)

    def _bytes_held(self, path):
        """The most bytes that a picture takes besides the network: float32 SR, four channels of 16 bits of it, and LR. Infinite for
        an animation whose frames are all wanted, and for a file that does not tell its size."""
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

    def _fail(self, path, error):
        self._lap()
        self.failed += 1
        text = str(error) or "not enough memory"
        tqdm.write("error: %s" % (text if path in text else "%s: %s" % (path, text)), file=sys.stderr)

    def _lap(self):
        """Seconds since the last picture was done."""
        last, self.before = self.before, time.time()
        return self.before - last


def upscale(args, scales, open_upscaler):
    """Upscale the pictures that args.input names into args.output; returns the exit status, 1 if any failed.

    scales: keys of SCALES. open_upscaler(scale): a context with an Upscaler, which prints what the network is; it may
    raise UserError.
    """
    paths, errors = find_pictures(args.input, args.output)
    jobs = [(scale, name_outputs(paths, scale, args)) for scale in scales]
    for error in errors:
        print("error: %s" % error, file=sys.stderr)
    done, failed, there, before = 0, len(errors), 0, time.time()
    for scale, outputs in jobs:
        left = [output for output in outputs if not (args.skip_existing and os.path.exists(output))]
        there += len(outputs) - len(left)
        with contextlib.ExitStack() as stack:
            if not left:
                continue
            try:
                upscaler = stack.enter_context(open_upscaler(scale))
            except UserError as error:
                failed += len(left)
                print("error: %s" % error, file=sys.stderr)
                continue
            pictures = upscale_all(upscaler, [(outputs[output], output) for output in left], args)
            done, failed = done + pictures.done, failed + pictures.failed
    print("%d of %d pictures in %.1f s%s" % (done, done + failed + there, time.time() - before,
                                             ", %d were there" % there if there else ""))
    return 1 if failed else 0


def upscale_all(upscaler, jobs, args):
    """Upscale pictures, [(path, output)]; returns Pictures, which says how many were done."""
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
