"""Upscaling of people's pictures, file by file: what test.py --input does, once the options are read."""
import collections
import os
import sys
import time

from tqdm import tqdm

from tools.pictures.files import FORMATS, compose, find_pictures, fit_format, read_picture
from utils import UserError, save_image


def name_outputs(paths, scale, args):
    """{path of SR: path of LR}. Raises UserError if two pictures would get one name, or one that of another's LR."""
    outputs, inputs = collections.OrderedDict(), {os.path.realpath(path) for path in paths}
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        output = os.path.join(args.output, "%s_%s.%s" % (stem, scale, args.format))
        if output in outputs:
            raise UserError("%s and %s would both become %s" % (outputs[output], path, output))
        if os.path.realpath(output) in inputs:
            raise UserError("%s would become %s, which is an input, too" % (path, output))
        outputs[output] = path
    return outputs


def upscale_picture(upscaler, path, output, args):
    """Upscale one image file, and print a line for it. Raises UserError, OSError or MemoryError."""
    before = time.time()
    if os.path.exists(output) and not args.overwrite:
        raise UserError("%s exists already: add --overwrite" % output)
    picture = fit_format(read_picture(path, args.max_megapixels), args.format)
    height, width = picture.color.shape[:2]
    if upscaler.factor * max(height, width) > FORMATS[args.format]:
        raise UserError("%s would have %dx%d pixels, and %s holds %d a side" % (
            output, upscaler.factor * width, upscaler.factor * height, args.format, FORMATS[args.format]))
    image = compose(upscaler(picture.color), picture, upscaler.factor)
    options = {} if args.format == "png" else {"quality": args.quality}
    save_image(output, image, format=args.format, icc_profile=picture.profile, **options)
    for note in picture.notes:
        tqdm.write("note: %s: %s" % (path, note), file=sys.stderr)
    seconds = time.time() - before
    tqdm.write("%-20s %dx%d -> %s %dx%d, %.1f s, %.2f megapixels/s" % (
        path, width, height, output, image.width, image.height, seconds, image.width * image.height / 1e6 / seconds))


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
                upscale_picture(upscaler, path, output, args)
                done += 1
            except (UserError, OSError, MemoryError) as error:
                failed += 1
                tqdm.write("error: %s" % (str(error) or "not enough memory for %s" % path), file=sys.stderr)
    print("%d of %d pictures in %.1f s" % (done, done + failed, time.time() - before))
    return 1 if failed else 0
