"""Evaluate DRSAN: test.py --dataset Set5; or upscale pictures: test.py --input FILES --output DIR

The evaluation prints PSNR and SSIM on Y by the paper's protocol, for each image and on average, with those of
bicubic upscaling beside. --input upscales pictures that have no ground truth.
"""
import argparse
import collections
import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from model import ABLATIONS, MODELS, SCALES
from tools.checkpoints import find_checkpoint
from tools.command import UserError, positive, run_main
from tools.data import download
from tools.data.download import authors_checkpoint, benchmark_files, count_published, weight_files
from tools.files import CsvLog, check_writable, short_path
from tools.network import Network, choose_variant
from tools.options import add_data_dir, add_gpu, add_limit, add_precision, scale_name
from tools.paper.results import published_scores, published_variants
from tools.pictures.tiles import limited_notes, to_image
from tools.pictures.upscale import add_picture_options, check_pictures, upscale_pictures
from utils import (BENCHMARKS, DATASETS, bicubic, find_dataset, find_layouts, mean_scores, read_pair,
                   save_image, score)

from tqdm import tqdm

Scores = collections.namedtuple("Scores", "psnr ssim bicubic_psnr bicubic_ssim")
COLUMNS = ("model", "scale", "dataset", "image") + Scores._fields  # of --csv
# of a data set. mean: Scores; published: the paper's (PSNR, SSIM) as text, or None; failed: how many images
Evaluation = collections.namedtuple("Evaluation", "dataset mean published failed")


@contextlib.contextmanager
def open_upscaler(model, scale, args):
    """Print what the trained network is, and give its Upscaler within this context. Raises UserError."""
    checkpoint = args.checkpoint
    if checkpoint == "authors":
        checkpoint = authors_checkpoint(model, scale, args.data_dir)
    prefix = find_checkpoint(model, scale, checkpoint)
    with Network(model, scale, prefix, args.gpu, args.without, args.precision, not args.no_limit) as network:
        print("DRSAN-{} {}     {:,} parameters, {:.2f} G multi-adds at 1280x720".format(
            model, scale, network.parameters, network.multi_adds / 1e9))
        print("checkpoint       %s" % short_path(network.prefix))
        memory = 2 ** 30 if args.without else args.memory  # tiles are for the whole network
        yield network.make_upscaler(args.tile, memory, args.ensemble, args.output)


def evaluate(upscaler, dataset, factor, output, log):
    """Upscale and score the images of a data set one at a time, with a line for each: the list of their
    Scores.

    output: folder for the SR images, or None. log: called with the name and the Scores of each image.
    """
    results = []
    print("%-20s %8s %8s %12s %8s" % ("image", "PSNR", "SSIM", "bicubic PSNR", "SSIM"), flush=True)
    for pair in tqdm(dataset.pairs, unit="image", leave=False, disable=None):
        try:
            lr, hr = read_pair(pair, factor)
            store = upscaler(lr)
            for note in limited_notes(store):
                tqdm.write("note: %s: %s" % (pair.name, note), file=sys.stderr)
            sr = to_image(store)
            if output:
                save_image(os.path.join(output, pair.name + ".png"), sr)
            scores = Scores(*score(sr, hr, factor) + score(bicubic(lr, factor), hr, factor))
        except UserError as error:
            tqdm.write("%-20s failed: %s" % (pair.name, error))
        else:
            results.append(scores)
            tqdm.write(format_scores(pair.name, scores))
            log(pair.name, scores)
    return results


def format_scores(name, scores):
    return "%-20s %8.3f %8.4f %12.3f %8.4f" % ((name,) + scores)


def print_table(results):
    """One line for each model and scale, one column of PSNR / SSIM for each data set; the paper's below where
    it has any. results: {(model, scale): [Evaluation, ...]}."""
    names = [result.dataset for row in results.values() for result in row]
    datasets = list(dict.fromkeys(names))

    def print_row(head, cells):
        words = ["%s / %s" % cells[name] if cells.get(name) else "-" for name in datasets]
        print("%-12s" % head + "".join("%18s" % word for word in words))

    print("\n%-12s" % "PSNR / SSIM" + "".join("%18s" % name for name in datasets))
    for (model, scale), row in results.items():
        print_row("%s %s" % (model, scale), {
            result.dataset: ("%.3f" % result.mean.psnr, "%.4f" % result.mean.ssim) for result in row})
        if any(result.published for result in row):
            print_row("  paper", {result.dataset: result.published for result in row})


def offer_downloads(args, variants):
    """Offer to download what these arguments need of what the authors published: images and weights."""
    files = []
    for name in args.dataset:  # in EDSR's layout, the images are the user's own
        if name in BENCHMARKS and not os.path.isdir(os.path.join(args.data_dir, name, "HR")):
            factors = sorted({SCALES[scale] for _, scale in variants})
            files += benchmark_files(name, args.data_dir, factors)
    if args.checkpoint == "authors":
        for model, scale in variants:
            files += weight_files(args.data_dir, model, scale)
    download.offer(files, args.data_dir, args.mirror, args.download)


def evaluate_named(upscaler, model, scale, name, args, csv_log):
    """Find a data set by its name, evaluate it, and print what it is and gives: an Evaluation.

    csv_log: CsvLog for the figures, or None. Raises UserError if it is not there, or all of its images fail.
    """
    before, factor = time.time(), SCALES[scale]
    dataset = find_dataset(name, factor, args.data_dir)
    print("data             %s: %s" % (dataset.name, dataset.origin))
    right, count = count_published(dataset, factor) if dataset.name in BENCHMARKS else (0, None)
    if name in BENCHMARKS:
        print("                 as published: %d of %d files" % (right, count))
    output = args.output and os.path.join(args.output, "%s_%s" % (model, scale), dataset.name)
    if output:
        os.makedirs(output, exist_ok=True)

    def log(image, scores):
        if csv_log:
            csv_log.add((model, scale, dataset.name, image) + tuple("%.4f" % value for value in scores))

    results = evaluate(upscaler, dataset, factor, output, log)
    if not results:
        raise UserError("no image of %s could be evaluated" % dataset.name)
    mean, failed = Scores(*mean_scores(results)), len(dataset.pairs) - len(results)
    log("mean", mean)
    print(format_scores("mean of %d" % len(results) if failed else "mean", mean))
    published = published_scores(model, scale, dataset.name) if right == count else None
    if published:
        psnr, ssim = map(float, published)
        print("%-20s %8.2f %8.4f   (difference %+.3f dB, %+.4f)"
              % ("paper", psnr, ssim, mean.psnr - psnr, mean.ssim - ssim))
    print("%d images in %.1f s" % (len(results), time.time() - before), flush=True)
    return Evaluation(dataset.name, mean, published, failed)


def test(args, variants):
    """Evaluate every (model, scale) on every data set: the exit status, 1 if any or any image failed."""
    csv_log = args.csv and CsvLog(args.csv, COLUMNS)
    results, failed = {}, 0
    for model, scale in variants:
        try:
            with open_upscaler(model, scale, args) as upscaler:
                for name in args.dataset:
                    try:
                        result = evaluate_named(upscaler, model, scale, name, args, csv_log)
                        results.setdefault((model, scale), []).append(result)
                        failed += result.failed
                    except UserError as error:
                        failed += 1
                        print("error: %s" % error, file=sys.stderr)
        except UserError as error:  # of the network
            failed += 1
            print("error: %s" % error, file=sys.stderr)
    if sum(map(len, results.values())) > 1:
        print_table(results)
    return 1 if failed else 0


def expand_all(names, choices):
    """The names, each once, with all `choices` in the place of `all`."""
    names = [choice for name in names for choice in (choices if name == "all" else [name])]
    return list(dict.fromkeys(names))


def add_network_options(parser):
    group = parser.add_argument_group("network")
    group.add_argument("--model", nargs="+", choices=list(MODELS) + ["all"],
                       help="one or several (default: that of --checkpoint, or else 32s)")
    group.add_argument("--scale", nargs="+", type=scale_name, choices=list(SCALES) + ["all"],
                       help="one or several (default: that of --checkpoint, or else x2)")
    group.add_argument("--checkpoint", type=os.path.expanduser, metavar="PATH",
                       help="prefix, .index file, folder of it or of a run, or `authors`: the authors' "
                       "(default: the shipped one)")
    group.add_argument("--without", choices=ABLATIONS,
                       help="of a checkpoint trained so: without DRA, its dynamics, or RSA")
    add_limit(group)
    group.add_argument("--ensemble", action="store_true", help="average over the 8 flips and transpositions")


def add_device_options(parser):
    group = parser.add_argument_group("device")
    add_gpu(group)
    add_precision(group)
    group.add_argument("--memory", type=positive(float), metavar="GIB",
                       help="GiB of memory to stay below (default: 4/5 of what is free, on a GPU of its own)")
    group.add_argument("--tile", type=positive(int), metavar="N",
                       help="work in tiles of at most NxN LR pixels, with the result of the whole image "
                       "(default: if the whole image does not fit the memory)")


def add_data_options(parser):
    group = parser.add_argument_group("evaluation")
    group.add_argument("--dataset", nargs="+", type=os.path.expanduser, metavar="NAME",
                       help=", ".join(DATASETS) + ", all, others below --data-dir, or folders (default Set5)")
    add_data_dir(group)
    group.add_argument("--csv", type=os.path.expanduser, metavar="FILE",
                       help="save the figures of every image, each as soon as it is known")
    group.add_argument("--download", action="store_true", help="download what is missing without asking")
    download.add_options(group)


def check_data_sets(parser, args):
    """End with a usage error unless the data sets may be there, each of another name; fills in `all`."""
    args.dataset, names = expand_all(args.dataset or ([] if args.input else ["Set5"]), DATASETS), []
    for name in args.dataset:
        layouts = find_layouts(name, 1, args.data_dir)
        found = [layout.name for layout in layouts if os.path.isdir(layout.hr)]
        if not (found or name in DATASETS or os.path.basename(name) != name):
            parser.error("unknown data set %r: choose from %s, all, others below --data-dir, or give a folder"
                         % (name, ", ".join(DATASETS)))
        names += found[:1] or [name]
    if len(set(names)) < len(names):
        parser.error("two data sets have the same name: " + " ".join(names))


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for add_options in add_network_options, add_device_options, add_data_options, add_picture_options:
        add_options(parser)
    parser.add_argument("--output", type=os.path.expanduser, metavar="DIR",
                        help="save the SR images below DIR; for a single picture, also the file's name")
    args = parser.parse_args(argv)
    check_pictures(parser, args)
    check_data_sets(parser, args)
    several = any("all" in names or len(names) > 1 for names in (args.model or [], args.scale or []))
    if args.checkpoint not in (None, "authors") and several:
        parser.error("--checkpoint goes with one --model and one --scale")
    if args.without and not args.checkpoint:
        parser.error("--without needs --checkpoint")
    if args.without and (args.input or args.tile or args.memory):
        parser.error("--without goes with data sets alone, without --tile and --memory")
    return args


def choose_variants(args):
    """The pairs of model and scale that the options name; with `all`, those of them that the paper has."""
    models, scales = args.model or ["32s"], args.scale or ["x2"]
    if args.checkpoint not in (None, "authors"):
        return [choose_variant(args.model and models[0], args.scale and scales[0], args.checkpoint)]
    pairs = [(model, scale) for scale in expand_all(scales, SCALES) for model in expand_all(models, MODELS)]
    if "all" not in models + scales:
        return pairs
    lacking = ["%s %s" % pair for pair in pairs if pair not in published_variants()]
    if lacking and "all" not in models:
        print("note: the paper has no %s" % ", ".join(lacking), file=sys.stderr)
    return [pair for pair in pairs if pair in published_variants()]


def main(argv=None):
    args = parse_args(argv)
    check_writable([args.output], [args.csv])
    for folder in args.output, os.path.dirname(args.csv or ""):
        os.makedirs(folder or ".", exist_ok=True)
    variants = choose_variants(args)
    offer_downloads(args, variants)
    if args.input:
        model, scales = variants[0][0], [scale for _, scale in variants]
        return upscale_pictures(args, scales, lambda scale: open_upscaler(model, scale, args))
    return test(args, variants)


if __name__ == "__main__":
    run_main(main)
