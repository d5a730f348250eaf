"""Compare our imresize with the published LR images, and score bicubic upscaling: python tools/paper/check_benchmarks.py

For each data set and scale: how many of the files are as published, the share of values of our LR that differ from the
published LR, by how many levels at worst, and PSNR / SSIM of bicubic upscaling by the paper's protocol.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES
from tools.command import UserError, cpu_count, process_pool, run_main
from tools.data.published import count_published
from tools.options import add_data_dir
from utils import BENCHMARKS, bicubic, downscale, find_dataset, read_pair, score

import numpy as np
from tqdm import tqdm


def check_pair(pair, scale):
    """(differing values, values, worst difference in levels, PSNR, SSIM) of one pair with a published LR image."""
    lr, hr = read_pair(pair, scale)
    difference = np.abs(downscale(hr, scale).astype(int) - lr)
    return (np.count_nonzero(difference), difference.size, difference.max()) + score(bicubic(lr, scale), hr, scale)


def check(dataset, scale, pool):
    """One line of the table for a DataSet at a scale, or None without published LR images. Raises UserError."""
    if dataset.pairs[0].lr is None:
        return None
    futures = [pool.submit(check_pair, pair, scale) for pair in dataset.pairs]
    results = [future.result() for future in tqdm(futures, unit="image", leave=False, disable=None)]
    differing, values, worst, psnr, ssim = np.array(results).T
    return "%-9s x%d %7d %6d of %3d %13.5f %% %7d %10.3f / %.4f" % (
        (dataset.name, scale, len(results)) + count_published(dataset, scale)
        + (100 * differing.sum() / values.sum(), worst.max(), psnr.mean(), ssim.mean()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", nargs="+", default=list(BENCHMARKS), choices=BENCHMARKS, help="default all")
    add_data_dir(parser)
    args = parser.parse_args()
    print("%-12s %7s %13s %15s %7s %19s"
          % ("", "images", "as published", "LR differs in", "worst", "bicubic PSNR / SSIM"))
    checked = failed = 0
    with process_pool(cpu_count()) as pool:
        for name in args.dataset:
            for scale in SCALES.values():
                line, dataset = None, None
                try:
                    dataset = find_dataset(name, scale, args.data_dir)
                    line = check(dataset, scale, pool)
                    checked += line is not None
                except UserError as error:
                    line = "%-9s x%d %s" % (name, scale, error)
                    failed += dataset is not None  # one that is not there is no failure
                print(line or "%-9s x%d no published LR images in %s" % (name, scale, args.data_dir), flush=True)
    return 0 if checked and not failed else 1


if __name__ == "__main__":
    run_main(main)
