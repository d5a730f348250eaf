"""Evaluate DRSAN: python test.py --gpu 0 --model 32s --scale x2 --dataset Set5

Prints PSNR and SSIM on Y by the paper's protocol, for each image and on average, with those of bicubic upscaling beside.
"""
import argparse
import collections
import csv
import os
import sys
import time

import numpy as np
from tqdm import tqdm

from model import MODELS, SCALES, count_multi_adds, count_parameters, drsan
from ops import tf
from tools import download
from utils import (DATASETS, UserError, bicubic, find_checkpoint, find_dataset, open_session, read_pair, restore_weights,
                   run_main, save_image, score, to_uint8)

PAPER_TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "figures", "paper_table.csv")

Scores = collections.namedtuple("Scores", "psnr ssim bicubic_psnr bicubic_ssim")


def read_paper_table():
    """The paper's results: {(model, scale): {"Set5_psnr": 37.99, "Set5_ssim": 0.9606, ...}}."""
    with open(PAPER_TABLE, newline="") as file:
        return {(row["model"], row["scale"]): row for row in csv.DictReader(file)}


def build(model, scale, gpu, checkpoint):
    """Open a session with the trained network; returns (upscale, prefix of the checkpoint, number of parameters), where
    upscale() maps an LR image to its SR image, both uint8 RGB."""
    prefix = find_checkpoint(model, scale, checkpoint)
    tf.reset_default_graph()
    lr = tf.placeholder(tf.float32, [1, None, None, 3])
    sr = drsan(lr, model, scale)
    session = open_session([gpu])
    restore_weights(session, prefix)

    def upscale(image):
        try:
            return to_uint8(255 * session.run(sr, {lr: image[None] / np.float32(255)})[0])
        except tf.errors.ResourceExhaustedError:
            raise UserError("not enough memory for an LR image of %dx%d pixels: try --gpu -1" % image.shape[1::-1])

    return upscale, prefix, count_parameters()


def evaluate(upscale, dataset, scale, output):
    """Upscale and score the images of a data set one at a time, with a line for each: {name: Scores}, and how many failed.

    output: folder for the SR images, or None.
    """
    results, failed = collections.OrderedDict(), 0
    print("%-20s %8s %8s %12s %8s" % ("image", "PSNR", "SSIM", "bicubic PSNR", "SSIM"), flush=True)
    for pair in tqdm(dataset.pairs, unit="image", leave=False, disable=None):
        try:
            lr, hr = read_pair(pair, scale)
            sr = upscale(lr)
            if output:
                save_image(os.path.join(output, pair.name + ".png"), sr)
            results[pair.name] = Scores(*(score(sr, hr, scale) + score(bicubic(lr, scale), hr, scale)))
            tqdm.write(format_scores(pair.name, results[pair.name]))
        except UserError as error:
            failed += 1
            tqdm.write("%-20s failed: %s" % (pair.name, error))
    return results, failed


def format_scores(name, scores):
    return "%-20s %8.3f %8.4f %12.3f %8.4f" % ((name,) + scores)


def mean_scores(results):
    return Scores(*np.mean(list(results.values()), axis=0))


def check_writable(args):
    """Raise UserError unless --output and --csv can be written; makes the folder of --output."""
    try:
        if args.output:
            os.makedirs(args.output, exist_ok=True)
        for path in [args.output and os.path.join(args.output, ".tmp"), args.csv and args.csv + ".tmp"]:
            if path:
                open(path, "w").close()
                os.remove(path)
    except OSError as error:
        raise UserError("cannot write %s: %s" % (error.filename, error.strerror))


def write_csv(path, rows):
    """Write (model, scale, data set, image, Scores) rows under a temporary name, then rename it to `path`."""
    with open(path + ".tmp", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("model", "scale", "dataset", "image") + Scores._fields)
        for row in rows:
            writer.writerow(row[:4] + tuple("%.4f" % value for value in row[4]))
    os.replace(path + ".tmp", path)


def published_scores(paper, model, scale, dataset):
    """The paper's (PSNR, SSIM) as text, or None."""
    row = paper.get((model, scale), {})
    return (row[dataset + "_psnr"], row[dataset + "_ssim"]) if dataset + "_psnr" in row else None


def print_table(means, paper):
    """One line for each model and scale, one column of PSNR / SSIM for each data set; the paper's below where it has any."""
    datasets = list(collections.OrderedDict((dataset, None) for _, _, dataset in means))

    def print_row(head, cells):
        print("%-12s" % head + "".join("%18s" % ("%s / %s" % cell if cell else "-") for cell in cells))

    print("\n%-12s" % "PSNR / SSIM" + "".join("%18s" % dataset for dataset in datasets))
    for model, scale in collections.OrderedDict((key[:2], None) for key in means):
        ours = [means.get((model, scale, dataset)) for dataset in datasets]
        print_row("%s %s" % (model, scale), [mean and ("%.3f" % mean.psnr, "%.4f" % mean.ssim) for mean in ours])
        published = [published_scores(paper, model, scale, dataset) for dataset in datasets]
        if any(published):
            print_row("  paper", published)


def offer_downloads(args, combinations):
    """Offer to download what the authors published and these arguments need: images, and their weights if asked for."""
    files = []
    for name in args.dataset:  # in EDSR's layout, the images are the user's own
        if name in download.BENCHMARKS and not os.path.isdir(os.path.join(args.data_dir, name, "HR")):
            files += download.benchmark_files(name, args.data_dir, [SCALES[scale] for scale in args.scale])
    if args.checkpoint == "authors":
        for model, scale in combinations:
            files += download.weight_files(args.data_dir, model, scale)
    download.offer(files, args.data_dir, args.mirror, args.download)


def evaluate_named(upscale, model, scale, name, args):
    """Find a data set by its name, print what it is, and evaluate it: (name, {image: Scores}, how many failed)."""
    dataset = find_dataset(name, SCALES[scale], args.data_dir)
    print("data             %s: %s" % (dataset.name, dataset.origin))
    if name in download.BENCHMARKS:
        print("                 as published: %d of %d files" % download.count_published(dataset, SCALES[scale]))
    output = args.output and os.path.join(args.output, "%s_%s" % (model, scale), dataset.name)
    if output:
        os.makedirs(output, exist_ok=True)
    return (dataset.name,) + evaluate(upscale, dataset, SCALES[scale], output)


def print_mean(mean, count, failed, published):
    """The line of the mean over `count` images, and the paper's (PSNR, SSIM) as text below it where there is one."""
    print(format_scores("mean of %d" % count if failed else "mean", mean))
    if published:
        psnr, ssim = map(float, published)
        print("%-20s %8.2f %8.4f   (difference %+.3f dB, %+.4f)"
              % ("paper", psnr, ssim, mean.psnr - psnr, mean.ssim - ssim))


def test(args):
    """Evaluate every combination that the arguments name; returns the exit status, 1 if any or any image failed."""
    check_writable(args)
    paper = read_paper_table()
    rows, means, failed = [], collections.OrderedDict(), 0
    combinations = [(model, scale) for scale in args.scale for model in args.model]
    if args.every:  # the 13 of the paper
        combinations = [pair for pair in combinations if pair in paper]
    offer_downloads(args, combinations)
    for model, scale in combinations:
        try:
            authors = args.checkpoint == "authors"
            checkpoint = download.authors_checkpoint(model, scale, args.data_dir) if authors else args.checkpoint
            upscale, prefix, parameters = build(model, scale, args.gpu, checkpoint)
        except UserError as error:
            failed += 1
            print("error: %s" % error, file=sys.stderr)
            continue
        print("DRSAN-%s %s     {:,} parameters, %.2f G multi-adds at 1280x720".format(parameters)
              % (model, scale, count_multi_adds(model, scale, 720, 1280) / 1e9))
        print("checkpoint       %s" % os.path.relpath(prefix))
        for name in args.dataset:
            before = time.time()
            try:
                name, results, failures = evaluate_named(upscale, model, scale, name, args)
                if not results:
                    raise UserError("no image of %s could be evaluated" % name)
            except UserError as error:
                failed += 1
                print("error: %s" % error, file=sys.stderr)
                continue
            failed += failures
            mean = means[model, scale, name] = mean_scores(results)
            rows += [(model, scale, name, image, scores) for image, scores in results.items()]
            print_mean(mean, len(results), failures, published_scores(paper, model, scale, name))
            print("%d images in %.1f s" % (len(results), time.time() - before), flush=True)
    if args.csv:
        write_csv(args.csv, rows + [key + ("mean", mean) for key, mean in means.items()])
    if len(means) > 1:
        print_table(means, paper)
    return 1 if failed else 0


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", type=int, default=0, help="index of the GPU, -1 for the CPU (default 0)")
    parser.add_argument("--model", nargs="+", default=["32s"], choices=list(MODELS) + ["all"])
    parser.add_argument("--scale", nargs="+", default=["x2"], choices=list(SCALES) + ["all"])
    parser.add_argument("--dataset", nargs="+", default=["Set5"], metavar="NAME",
                        help="%s, all, or folders of HR images (default Set5)" % ", ".join(DATASETS))
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="where the data sets are (default data)")
    parser.add_argument("--checkpoint", metavar="PATH",
                        help="prefix, .index file or folder, or `authors`: the authors' (default: the shipped one)")
    parser.add_argument("--download", action="store_true", help="download missing images and weights without asking")
    download.add_options(parser)
    parser.add_argument("--output", metavar="DIR", help="save the SR images below DIR")
    parser.add_argument("--csv", metavar="FILE", help="save the figures of every image")
    args = parser.parse_args()
    args.every = "all" in args.model + args.scale
    for key, choices in ("model", MODELS), ("scale", SCALES), ("dataset", DATASETS):
        if "all" in getattr(args, key):
            setattr(args, key, list(choices))
    for name in args.dataset:
        if name not in DATASETS and not os.path.isdir(name) and os.path.basename(name) == name:
            parser.error("unknown data set %r: choose from %s, all, or give a folder" % (name, ", ".join(DATASETS)))
    names = [os.path.basename(os.path.abspath(name)) for name in args.dataset]
    if len(set(names)) < len(names):
        parser.error("two data sets have the same name: " + " ".join(names))
    if args.checkpoint not in (None, "authors") and len(args.model) * len(args.scale) > 1:
        parser.error("--checkpoint goes with one --model and one --scale")
    return args


if __name__ == "__main__":
    run_main(lambda: test(parse_args()))
