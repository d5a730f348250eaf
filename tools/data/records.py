"""Pairs of patches as TFRecords in the authors' format: features `image` (LR) and `label` (HR), raw bytes of uint8 RGB."""
import contextlib
import functools
import glob
import json
import os
import shutil
import threading

from model import SCALES
from ops import tf
from tools.command import UserError
from tools.data.photographs import describe_data, in_threads
from tools.files import locked, replacing, write_json
from tools.runtime import error_reason

import numpy as np
from tqdm import tqdm

RECORD_OVERHEAD = 16  # bytes of a TFRecord beside its data: length, its checksum, and the checksum of the data


def write_records(sampler, folder, pairs, shards):
    """Write `pairs` random pairs of a Sampler to `shards` files in `folder`; those that are there already are kept.

    Each file appears under its name once it is complete, and depends on the sampler's seed and its own number alone: an
    interrupted call is continued by the same call. Raises UserError if the disk has no room for them.
    """
    s, p = sampler.factor, sampler.patch
    sizes = [pairs * (i + 1) // shards - pairs * i // shards for i in range(shards)]
    paths = [os.path.join(folder, "train_SR_aug_X%d_%d-%05d-of-%05d.tfrecord" % (s, pairs, i, shards)) for i in range(shards)]
    missing = [i for i in range(shards) if not os.path.exists(paths[i])]
    needed = sum(sizes[i] for i in missing) * (3 * p * p * (1 + s * s) + 64)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError("%s has %.1f GB free, but the records need %.1f GB: lower --pairs" % (folder, free / 1e9, needed / 1e9))

    def write(i):
        with replacing(paths[i]) as temporary, tf.python_io.TFRecordWriter(temporary) as writer:
            for lr, hr in zip(*sampler(i, sizes[i])):
                features = {"image": lr, "label": hr}
                writer.write(tf.train.Example(features=tf.train.Features(feature={
                    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
                    for key, value in features.items()})).SerializeToString(deterministic=True))

    try:
        with contextlib.closing(in_threads(write, missing, 2)) as writing:
            for _ in tqdm(writing, "writing", len(missing), unit="file", disable=None):
                pass
    except (tf.errors.OpError, OSError) as error:
        raise UserError("cannot write records to %s: %s" % (folder, error_reason(error)))


def records_config(folder):
    """How a folder of records was written, as its records.json says; {} if it has none, as the authors' records."""
    path = os.path.join(folder, "records.json")
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


class RecordSampler(object):
    """Batches from TFRecords in the authors' format, each pair once in an epoch, in an order of its own every epoch."""

    def __init__(self, folder, factor, batch, patch, seed):
        """folder: of *.tfrecord files, of which every record has the same size. Raises UserError if it has none."""
        self.factor, self.batch, self.patch, self.seed = factor, batch, patch, seed
        self.files = [open(path, "rb") for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))]
        if not self.files:
            raise UserError("no *.tfrecord in %s: give --data to write them from photographs" % folder)
        first = self.files[0].read(RECORD_OVERHEAD)
        if len(first) < RECORD_OVERHEAD:
            raise UserError("%s is too short to hold a record: write it again" % self.files[0].name)
        self.length = int(np.frombuffer(first[:8], np.uint64)[0])
        self.lock, self.offsets = threading.Lock(), []
        for i, file in enumerate(self.files):
            size = os.path.getsize(file.name)
            if size % (self.length + RECORD_OVERHEAD):
                raise UserError("%s does not consist of records of %d bytes, as the first does: write it again"
                                % (file.name, self.length))
            self.offsets += [(i, offset) for offset in range(0, size, self.length + RECORD_OVERHEAD)]
        self._read(0)  # so that records of another scale or patch are an error now

    def _read(self, index):
        i, offset = self.offsets[index]
        with self.lock:
            self.files[i].seek(offset + 12)
            data = self.files[i].read(self.length)
        lr, hr = self.patch, self.patch * self.factor
        try:
            feature = tf.train.Example.FromString(data).features.feature
            return (np.frombuffer(feature["image"].bytes_list.value[0], np.uint8).reshape(lr, lr, 3),
                    np.frombuffer(feature["label"].bytes_list.value[0], np.uint8).reshape(hr, hr, 3))
        except Exception as error:  # of protobuf, in either version, or of NumPy
            raise UserError("%s: the record at byte %d is no pair of %dx%d and %dx%d patches: %s" % (
                self.files[i].name, offset, lr, lr, hr, hr, str(error).splitlines()[0] if str(error) else "damaged"))

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.RandomState([self.seed, epoch]).permutation(len(self.offsets))

    def __call__(self, step):
        """The batch of a step, a function of seed and step alone: LR [batch, p, p, 3], HR [batch, sp, sp, 3], uint8."""
        positions = range(step * self.batch, (step + 1) * self.batch)
        pairs = [self._read(self._order(i // len(self.offsets))[i % len(self.offsets)]) for i in positions]
        return tuple(np.stack(images) for images in zip(*pairs))


def prepare_records(args, recipe, open_photographs):
    """Write what is missing of the records in args.records. Raises UserError if they were written otherwise, or not here."""
    wanted = dict(data=describe_data(args.data), valid_share=args.valid_share, scale=args.scale, patch=recipe.patch,
                  candidates=recipe.candidates, seed=args.seed, pairs=args.pairs, shards=args.shards)
    started = records_config(args.records)
    if not started and glob.glob(os.path.join(glob.escape(args.records), "*.tfrecord")):
        raise UserError("%s holds records that were not written here: leave out --data to train on them, or give another "
                        "--records" % args.records)
    if started:
        started["data"] = dict(started["data"], folder=args.data)  # wherever they lay
        different = sorted(key for key in wanted if started.get(key) != wanted[key])
        if different:
            raise UserError("%s holds records with another %s: give another --records" % (args.records, ", ".join(different)))
    else:
        write_json(os.path.join(args.records, "records.json"), wanted)
    done = glob.glob(os.path.join(glob.escape(args.records), "*-of-%05d.tfrecord" % args.shards))
    if len(done) < args.shards:
        write_records(open_photographs(), args.records, args.pairs, args.shards)


def open_records(args, recipe, open_photographs):
    """The RecordSampler of the records in args.records, which are first written if args.data is given and they are not complete.

    open_photographs: returns the Sampler of the photographs; called only if something is to be written.
    """
    if args.data:
        with locked(args.records, "writes records to", "--records"):
            prepare_records(args, recipe, open_photographs)
    sampler = RecordSampler(args.records, SCALES[args.scale], recipe.batch, recipe.patch, args.seed)
    pairs = records_config(args.records).get("pairs", len(sampler.offsets))
    if len(sampler.offsets) != pairs:
        raise UserError("%s holds %d of %d pairs: give --data and the options that it was started with to write the rest" % (
            args.records, len(sampler.offsets), pairs))
    print("%d pairs in %d files of %s" % (pairs, len(sampler.files), args.records), flush=True)
    return sampler
