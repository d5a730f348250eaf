"""Upscaling of people's pictures, file by file: what test.py --input does, once the options are read."""
import collections
import os
import sys
import time

from tools.command import UserError
from tools.files import LONGEST_NAME
from tools.pictures.files import animation_suffix, find_pictures, read_frames, read_picture
from tools.pictures.write import LARGEST_SIDE, SUFFIX_FORMATS, compose, fit_format, save_animation, save_picture

from tqdm import tqdm


def name_outputs(paths, scale, args):
    """{path of SR: path of LR}. Of two pictures whose names differ in the suffix alone, the second's keeps it.

    args.file: the name of the SR image, if there is one alone and a name for it, or None. Raises UserError if two pictures would
    get one name all the same, or one that of another's LR.
    """
    outputs, inputs = collections.OrderedDict(), {os.path.realpath(path) for path in paths}
    for path in paths:
        stem, suffix = os.path.splitext(os.path.basename(path))
        end = "%s.%s" % (scale, args.frames and animation_suffix(path) or args.format)
        output = args.file or os.path.join(args.output, "%s_%s" % (stem, end))
        if output in outputs and not args.file:
            output = os.path.join(args.output, "%s_%s_%s" % (stem, suffix[1:], end))
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
        raise UserError("%s exists already: add --overwrite" % output)


def check_sides(output, picture, factor):
    """Raise UserError if the SR image of a Picture is larger than its format holds."""
    height, width = picture.color.shape[:2]
    suffix = os.path.splitext(output)[1].lower()
    name = SUFFIX_FORMATS.get(suffix, suffix[1:])
    if factor * max(height, width) > LARGEST_SIDE[name]:
        raise UserError("%s would have %dx%d pixels, and %s holds %d a side" % (
            output, factor * width, factor * height, name, LARGEST_SIDE[name]))


def upscale_picture(upscaler, path, output, args):
    """Upscale one image file, or all frames of an animation with args.frames: ((height, width) of LR, count of frames, notes).

    Raises UserError, OSError or MemoryError.
    """
    suffix = args.frames and animation_suffix(path)
    if suffix:
        animation = read_frames(path, args.max_megapixels)
        pictures = animation.pictures
        check_sides(output, pictures[0], upscaler.factor)
        frames = (compose(upscaler(picture.color), picture, upscaler.factor) for picture in pictures)
        save_animation(output, frames, animation, suffix, args.quality)
        notes = ["all %d frames" % len(pictures)]
    else:
        pictures = [fit_format(read_picture(path, args.max_megapixels), args.format)]
        check_sides(output, pictures[0], upscaler.factor)
        image = compose(upscaler(pictures[0].color), pictures[0], upscaler.factor)
        note = save_picture(output, image, pictures[0], upscaler.factor, args)
        notes = pictures[0].notes + ([note] if note else [])
    return pictures[0].color.shape[:2], len(pictures), notes


def report(upscaler, path, output, args):
    """Upscale one image file, and print a line for it, and its notes. Raises as upscale_picture()."""
    before = time.time()
    check_output(path, output, args.overwrite)
    (height, width), frames, notes = upscale_picture(upscaler, path, output, args)
    for note in notes:
        tqdm.write("note: %s: %s" % (path, note), file=sys.stderr)
    seconds, height_sr, width_sr = time.time() - before, height * upscaler.factor, width * upscaler.factor
    tqdm.write("%-20s %dx%d -> %s %dx%d, %.1f s, %.2f megapixels/s" % (
        path, width, height, output, width_sr, height_sr, seconds, frames * width_sr * height_sr / 1e6 / seconds))


def upscale(args, scales, build):
    """Upscale the pictures that args.input names into args.output; returns the exit status, 1 if any failed.

    scales: keys of SCALES. build(scale): prints what the network is, and returns its Upscaler; it may raise UserError.
    """
    paths, errors = find_pictures(args.input, args.output)
    jobs = [(scale, name_outputs(paths, scale, args)) for scale in scales]
    for error in errors:
        print("error: %s" % error, file=sys.stderr)
    done, failed, before = 0, len(errors), time.time()
    for scale, outputs in jobs if paths else []:
        try:
            upscaler = build(scale)
        except UserError as error:
            failed += len(outputs)
            print("error: %s" % error, file=sys.stderr)
            continue
        for output, path in tqdm(outputs.items(), unit="picture", leave=False, disable=None):
            try:
                report(upscaler, path, output, args)
                done += 1
            except (UserError, OSError, MemoryError) as error:
                failed += 1
                tqdm.write("error: %s" % (str(error) or "not enough memory for %s" % path), file=sys.stderr)
    print("%d of %d pictures in %.1f s" % (done, done + failed, time.time() - before))
    return 1 if failed else 0
