"""Pairs of patches as TFRecords in the authors' format: features `image` (LR) and `label` (HR), raw bytes of
uint8 RGB."""
import contextlib
import functools
import glob
import json
import os
import threading

from model import SCALES
from ops import tf
from tools.command import UserError
from tools.data.photographs import describe_data, in_threads
from tools.files import locked, replacing, write_json
from tools.runtime import error_reason
from tools.training.history import say

import numpy as np
from tqdm import tqdm

OVERHEAD = 16  # bytes of a TFRecord beside its data: 8 of its length, and two checksums


def open_records(args, recipe, open_photographs):
    """The RecordSampler of the records in args.records, which are first written if args.data is given.

    open_photographs: returns the Sampler of the photographs; called only if something is to be written.
    Raises UserError if records are missing, or were written otherwise.
    """
    if args.data:
        with locked(args.records, "writes records to", "--records"):
            prepare_records(args, recipe, open_photographs)
    sampler = RecordSampler(args.records, SCALES[args.scale], recipe.batch, recipe.patch, args.seed)
    pairs = records_config(args.records).get("pairs", len(sampler.offsets))
    if len(sampler.offsets) != pairs:
        raise UserError("%s holds %d of %d pairs: give --data and the options that it was started with to "
                        "write the rest" % (args.records, len(sampler.offsets), pairs))
    say("%d pairs in %d files of %s" % (pairs, len(sampler.files), args.records))
    return sampler


def records_config(folder):
    """How a folder of records was written, as its records.json says; {} if it has none, as the authors'
    records."""
    path = os.path.join(folder, "records.json")
    try:
        with open(path) as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise UserError("cannot read %s: %s; remove it to train on these records" % (path, error))


def prepare_records(args, recipe, open_photographs):
    """Write what is missing of the records in args.records. Raises UserError if they were written
    otherwise."""
    same = {key: getattr(args, key) for key in ("valid_share", "scale", "seed", "pairs", "shards")}
    wanted = dict(same, data=describe_data(args.data), patch=recipe.patch, candidates=recipe.candidates,
                  textures=recipe.textures)
    started, files = records_config(args.records), os.path.join(glob.escape(args.records), "*.tfrecord")
    if not started and glob.glob(files):
        raise UserError("%s holds records that were not written here: leave out --data to train on them, or "
                        "give another --records" % args.records)
    if started:
        started["data"] = dict(started["data"], folder=args.data)  # wherever they lay
        started.setdefault("textures", 0)  # by an earlier version
        different = sorted(key for key in wanted if started.get(key) != wanted[key])
        if different:
            raise UserError("%s holds records with another %s: give another --records" % (
                args.records, ", ".join(different)))
    else:
        write_json(os.path.join(args.records, "records.json"), wanted)
    if len(glob.glob(files)) < args.shards:
        write_records(open_photographs(), args.records, args.pairs, args.shards)


def write_records(sampler, folder, pairs, shards):
    """Write `pairs` random pairs of a Sampler to `shards` files in `folder`; those that are there already are
    kept.

    Each file appears under its name once it is complete, and depends on the sampler's seed and its own number
    alone: an interrupted call is continued by the same call. Raises UserError if the disk has no room for
    them.
    """
    for left in glob.glob(os.path.join(glob.escape(folder), "*.tfrecord.*.tmp")):  # by a call that was killed
        os.remove(left)
    sizes = [pairs * (i + 1) // shards - pairs * i // shards for i in range(shards)]
    name = "train_SR_aug_X%d_%d-%%05d-of-%05d.tfrecord" % (sampler.factor, pairs, shards)
    paths = [os.path.join(folder, name % i) for i in range(shards)]
    missing = [i for i in range(shards) if not os.path.exists(paths[i])]

    def write(i):
        with replacing(paths[i]) as temporary, tf.python_io.TFRecordWriter(temporary) as writer:
            for lr, hr in zip(*sampler(i, sizes[i])):
                features = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
                            for key, value in (("image", lr), ("label", hr))}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString(deterministic=True))

    try:
        with contextlib.closing(in_threads(write, missing, 2)) as writing:
            for _ in tqdm(writing, "writing", len(missing), unit="file", disable=None):
                pass
    except (tf.errors.OpError, OSError) as error:
        raise UserError("cannot write records to %s: %s" % (folder, error_reason(error)))


class RecordSampler(object):
    """Batches from TFRecords in the authors' format, each pair once in an epoch, in an order of its own every
    epoch."""

    def __init__(self, folder, factor, batch, patch, seed):
        """folder: of *.tfrecord files, of which every record has the same size. Raises UserError if it has
        none."""
        self.factor, self.batch, self.patch, self.seed = factor, batch, patch, seed
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))
        if not paths:
            raise UserError("no *.tfrecord in %s: give --data to write them from photographs" % folder)
        self.files, self.lock, self.offsets = [open(path, "rb") for path in paths], threading.Lock(), []
        first = np.frombuffer(self.files[0].read(8), np.uint8)
        self.length = int(first.view(np.uint64)[0]) if len(first) == 8 else 0
        for i, path in enumerate(paths):
            size = os.path.getsize(path)
            if size % (self.length + OVERHEAD) or not size:
                raise UserError("%s does not consist of records of one size: write it again" % path)
            self.offsets += [(i, offset) for offset in range(0, size, self.length + OVERHEAD)]
        self._read(0)  # so that records of another scale or patch are an error now

    def _read(self, index):
        i, offset = self.offsets[index]
        with self.lock:
            self.files[i].seek(offset + 12)
            data = self.files[i].read(self.length)
        lr, hr = self.patch, self.patch * self.factor
        try:
            feature = tf.train.Example.FromString(data).features.feature
            return tuple(np.frombuffer(feature[key].bytes_list.value[0], np.uint8).reshape(side, side, 3)
                         for key, side in (("image", lr), ("label", hr)))
        except Exception as error:  # of protobuf, in either version, or of NumPy
            reason = str(error).splitlines()[0] if str(error) else "damaged"
            raise UserError("%s: the record at byte %d is no pair of %dx%d and %dx%d patches: %s" % (
                self.files[i].name, offset, lr, lr, hr, hr, reason))

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.RandomState([self.seed, epoch]).permutation(len(self.offsets))

    def __call__(self, step):
        """The batch of a step, a function of seed and step alone: LR [batch, p, p, 3], HR [batch, sp, sp, 3],
        uint8."""
        positions = [divmod(i, len(self.offsets)) for i in range(step * self.batch, (step + 1) * self.batch)]
        pairs = [self._read(self._order(epoch)[index]) for epoch, index in positions]
        return tuple(np.stack(images) for images in zip(*pairs))
