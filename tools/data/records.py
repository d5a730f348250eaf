"""Pairs of patches as TFRecords in the authors' format: features `image` (LR) and `label` (HR), raw bytes of
uint8 RGB."""
import contextlib
import functools
import glob
import os
import threading

from model import SCALES
from ops import tf
from tools.command import UserError, say
from tools.data.photographs import describe_data, in_threads
from tools.files import locked, read_json, replacing, write_json
from tools.runtime import error_reason

import numpy as np
from tqdm import tqdm

FRAMING = 16  # bytes of a TFRecord beside its data: 8 of its length, and two checksums


def open_records(args, recipe, open_photographs):
    """(RecordSampler of the records in args.records, the Recipe by which their patches were chosen). If
    args.data is given, what is missing of them is first written, from the Sampler that open_photographs()
    returns. Raises UserError if records are missing, or were written otherwise."""
    if args.data:
        with locked(args.records, "writes records to", "--records"):
            prepare_records(args, recipe, open_photographs)
    sampler = RecordSampler(args.records, SCALES[args.scale], recipe.batch, recipe.patch, args.seed)
    written, found = records_config(args.records), len(sampler.offsets)
    if found != written.get("pairs", found):
        raise UserError("%s holds %d of %d pairs: give --data and the options that it was started with to "
                        "write the rest" % (args.records, found, written["pairs"]))
    say("%d pairs in %d files of %s" % (found, len(sampler.files), args.records))
    return sampler, recipe._replace(
        candidates=written.get("candidates", 1), textures=written.get("textures", 0))


def list_records(folder):
    """The paths of the *.tfrecord in a folder, sorted."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))


def records_config(folder):
    """How records were written, as the records.json beside them says; {} without one, as the authors'."""
    return read_json(os.path.join(folder, "records.json"), "remove it to train on these records")


def prepare_records(args, recipe, open_photographs):
    """Write what is missing of the records. Raises UserError if there are others."""
    wanted = {key: getattr(args, key) for key in ("valid_share", "scale", "seed", "pairs", "shards")}
    wanted.update(data=describe_data(args.data), patch=recipe.patch, candidates=recipe.candidates,
                  textures=recipe.textures)
    started, there = records_config(args.records), list_records(args.records)
    if there and not started:
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
    if len(there) < args.shards:
        write_records(open_photographs(), args.records, args.pairs, args.shards)


def write_records(sampler, folder, pairs, shards):
    """Write `pairs` random pairs of a Sampler to `shards` files in `folder`; those that are there are kept:
    each depends on the sampler's seed and its own number alone. Raises UserError if the disk has no room."""
    for left in glob.glob(os.path.join(glob.escape(folder), "*.tfrecord.*.tmp")):  # by a call that was killed
        os.remove(left)
    name = "train_SR_aug_X%d_%d-%%05d-of-%05d.tfrecord" % (sampler.factor, pairs, shards)
    paths = [os.path.join(folder, name % i) for i in range(shards)]
    missing = [i for i in range(shards) if not os.path.exists(paths[i])]

    def write(i):
        size = pairs * (i + 1) // shards - pairs * i // shards
        with replacing(paths[i]) as temporary, tf.python_io.TFRecordWriter(temporary) as writer:
            for lr, hr in zip(*sampler(i, size)):
                features = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
                            for key, value in (("image", lr), ("label", hr))}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString(deterministic=True))

    try:
        with contextlib.closing(in_threads(write, missing, 2)) as writing:
            list(tqdm(writing, "writing", len(missing), unit="file", disable=None))
    except (tf.errors.OpError, OSError) as error:
        raise UserError("cannot write records to %s: %s" % (folder, error_reason(error)))


class RecordSampler(object):
    """Batches from TFRecords, each pair once in an epoch, in an order of its own every epoch."""

    def __init__(self, folder, factor, batch, patch, seed):
        """folder: of *.tfrecord files, of which every record has the same size."""
        self.factor, self.batch, self.patch, self.seed = factor, batch, patch, seed
        paths = list_records(folder)
        if not paths:
            raise UserError("no *.tfrecord in %s: give --data to write them from photographs" % folder)
        self.files, self.lock, self.offsets = [open(path, "rb") for path in paths], threading.Lock(), []
        self.length = int.from_bytes(self.files[0].read(8), "little")
        for i, path in enumerate(paths):
            size = os.path.getsize(path)
            if size % (self.length + FRAMING) or not size:
                raise UserError("%s does not consist of records of one size: write it again" % path)
            self.offsets += [(i, offset) for offset in range(0, size, self.length + FRAMING)]
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
            raise UserError("%s: the record at byte %d is no pair of %dx%d and %dx%d patches: %s" % (
                self.files[i].name, offset, lr, lr, hr, hr, (str(error) or "damaged").splitlines()[0]))

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.RandomState([self.seed, epoch]).permutation(len(self.offsets))

    def __call__(self, step):
        """The batch of a step, of seed and step alone: uint8 LR [batch, p, p, 3], HR [batch, sp, sp, 3]."""
        positions = [divmod(i, len(self.offsets)) for i in range(step * self.batch, (step + 1) * self.batch)]
        pairs = [self._read(self._order(epoch)[index]) for epoch, index in positions]
        return tuple(np.stack(images) for images in zip(*pairs))
