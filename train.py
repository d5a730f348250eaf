"""Train DRSAN on a folder of photographs: python train.py --gpu 0 --model 32s --scale x2 --data data/DIV2K/DIV2K_train_HR

A run lives in runs/<model>_<scale>: config.json, log.jsonl, state/ (the training state, from which the same command resumes)
and best/ (the weights with the best validation PSNR, to be evaluated by test.py --checkpoint). What a recipe, a run, a batch and
the training graph are stands in tools/training/ and tools/data/; here they come together.
"""
import argparse
import os
import time

from model import ABLATIONS, SCALES
from ops import tf
from tools.checkpoints import PATTERN_CHARACTERS, checkpoint_prefix, find_checkpoint, load_values, note_seen, training_history
from tools.command import UserError, cpu_count, not_negative, positive, run_main
from tools.data.patches import Sampler, prefetch
from tools.data.photographs import describe_data, hold_out, load_photographs, open_valid
from tools.data.records import open_records, records_config
from tools.files import check_writable, locked
from tools.options import add_data_dir, add_precision, add_valid_share, add_variant, gpus
from tools.runtime import check_precision, error_reason
from tools.training.cluster import Devices, Watch, other_tasks, read_cluster, serve, watching
from tools.training.graph import averaged_weights, build_training, start_from, validate
from tools.training.history import Meter, divergence, outlive_readers, say
from tools.training.recipes import MAX_LOSS, MAX_SKIPPED, add_recipe_options, choose_recipe, learning_rate
from tools.training.runs import Run

import numpy as np


def train(args):
    """What the command does: recipe, data and run from the options, then the training, from where the run was left; returns the exit
    status."""
    cluster = read_cluster()
    if cluster and cluster.type != "chief":
        return serve(cluster, args.gpu, args.chief_timeout)
    watch = Watch(other_tasks(cluster))
    with watching(watch.check):
        return train_here(args, cluster, watch)


def train_here(args, cluster, watch):
    """As train(), of the process that reads data and writes the run; it ends by signals as the Watch says."""
    check_precision(args.precision)
    check_writable([None if args.prepare else args.run, args.records if args.data else None])
    recipe, sampler = choose_recipe(args, args.model, args.scale), None
    if args.records:
        sampler = open_records(args, recipe, lambda: open_photographs(args, recipe))
        recipe = recipe._replace(candidates=records_config(args.records).get("candidates", 1))
        if args.prepare:
            return
    held_out = hold_out(args.data, args.valid_share)[1] if args.valid_share else []
    run, start = open_run(args, recipe, held_out)
    valid = open_valid(args.valid, held_out, SCALES[args.scale], args.data_dir)
    sampler = sampler or open_photographs(args, recipe)
    print("recipe %s: %s" % (args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())), flush=True)
    with locked(run.folder, "trains in", "--run"):
        return Trainer(args, recipe, run, sampler, valid, watch).train(start, cluster)


def open_photographs(args, recipe):
    """The Sampler of the photographs below --data."""
    photographs = load_photographs(args.data, SCALES[args.scale], recipe.patch, args.workers, args.valid_share)
    print("%d photographs, %.1f megapixels" % (
        len(photographs), sum(hr.shape[0] * hr.shape[1] for _, hr in photographs) / 1e6), flush=True)
    return Sampler(photographs, SCALES[args.scale], recipe.batch, recipe.patch, args.seed, recipe.candidates, recipe.textures)


def open_run(args, recipe, held_out):
    """The Run that the options name, and the checkpoint it starts from, or None if it resumes or starts from scratch."""
    resumes = checkpoint_prefix(os.path.join(args.run, "state"))
    start = find_checkpoint(args.model, args.scale, args.init_from) if args.init_from is not None and not resumes else None
    names = [os.path.relpath(path, args.data) for path in held_out]
    if start:
        note_seen(start, names)
    return Run(args.run, dict(
        recipe._asdict(), model=args.model, scale=args.scale, recipe=args.recipe, seed=args.seed, init_from=args.init_from,
        trained_before=training_history(start) if start else [], without=args.without, precision=args.precision,
        valid=args.valid, valid_share=args.valid_share, held_out=names,
        data=describe_data(args.records or args.data))), start


class Trainer(object):
    """A run in training: its graph on its devices, and the loop that trains, logs, validates and saves.

    sampler: the batch of a step, as a function. valid: as open_valid() gives it.
    """

    def __init__(self, args, recipe, run, sampler, valid, watch):
        self.args, self.recipe, self.run, self.sampler, self.valid, self.watch = args, recipe, run, sampler, valid, watch
        self.judge = list(valid.values())[-1][0]  # the name of what the best weights are the best on

    def train(self, start, cluster):
        """Build the graph, and train from the run's last state, or else from the checkpoint `start` (None: initial weights), until
        the training is done or stopped; returns the exit status, 128 and the number of the signal if one stopped it."""
        args = self.args
        devices = self.devices = Devices(args.gpu, args.threads, self.recipe.batch, cluster)
        check_precision(args.precision, devices.on_cpu)
        with devices.telling_failure():
            tf.set_random_seed(args.seed)
            self.training = build_training(args.model, args.scale, self.recipe, devices.names, args.without, args.precision,
                                           devices.compiled)
            self.run.build(devices.chief)
            tf.get_default_graph().finalize()
            step = self.keep_optimizing(start)
        if step < self.recipe.steps:
            print("stopped at step %d; the same command resumes" % step)
            return 128 + self.watch.signal
        devices.tell(True)
        print("done: %s" % self.run.best)

    def keep_optimizing(self, start):
        """As optimize(), from the last state again whenever a task of the cluster was lost."""
        while True:
            try:
                with self.devices.connect() as session:
                    return self.optimize(session, start)
            except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
                if not self.devices.others:
                    raise
                print("lost a task of the cluster (%s): going on from the last state when all are there" % (
                    error_reason(error)), flush=True)

    def start_or_resume(self, start):
        """Bring the weights and whatever else there is into the variables; returns the step from which the run goes on."""
        step = self.run.open(self.session, self.training.step)
        if step:
            print("resumed at step %d, %s" % (step, "before its first validation" if self.run.best_psnr == -np.inf else
                                              "best PSNR of %s %.3f dB" % (self.judge, self.run.best_psnr)), flush=True)
        elif start:
            print(start_from(self.session, self.training, start), flush=True)
        return step

    def optimize(self, session, start):
        """Train to recipe.steps, or until stopped; returns the step reached, which is saved."""
        self.session, recipe, args = session, self.recipe, self.args
        step = first = self.start_or_resume(start)
        batches, saved = prefetch(self.sampler, step, recipe.steps), time.time()
        self.applied, in_a_row = None, 0  # what was fed to the last step that was not skipped; how many were, since
        with Meter(self.run, recipe, step, self.devices.on_cpu) as meter:
            while step < recipe.steps and not self.watch.signal:
                with meter.waiting():
                    lr, hr = next(batches)
                feed = {self.training.lr: lr, self.training.hr: hr, self.training.rate: learning_rate(recipe, step)}
                loss, norm, skipped = self.run_step(feed, step)
                step += 1
                self.watch.begun = True
                meter.add(loss, norm, skipped)
                self.applied, in_a_row = (self.applied, in_a_row + 1) if skipped else (feed, 0)
                if in_a_row == MAX_SKIPPED:
                    self.give_up(step, loss, norm)
                if step % args.log_every == 0 or step == recipe.steps:
                    meter.log(step, feed[self.training.rate])
                if step % args.valid_every == 0 or step == recipe.steps:
                    with meter.paused():
                        self.validate(step, feed)
                if time.time() - saved > 60 * args.save_minutes and self.is_sound():
                    self.run.save_state(step)
                    saved = time.time()
        if step > first:
            if not self.is_sound():
                self.give_up(step, loss, norm)
            self.run.save_state(step)
        return step

    def run_step(self, feed, step):
        """The loss of a step, the norm of its gradient, and whether it was skipped. Raises UserError if the memory is too small."""
        training = self.training
        try:
            return self.session.run([training.train, training.loss, training.norm, training.skipped], feed)[1:]
        except tf.errors.ResourceExhaustedError:
            raise UserError("not enough memory for step %d: lower --batch or --patch" % step)

    def validate(self, step, feed):
        """Print and log what the averaged weights reach on the validation sets, and save them if they are the best so far."""
        dra, rms = self.session.run([self.training.largest_dra, self.training.kernel_rms], feed)
        record = dict(step=step, seconds=round(self.run.seconds, 1), largest_dra=float("%.4g" % dra),
                      kernel_rms=float("%.4g" % rms))
        with averaged_weights(self.session, self.training):
            for key, (_, pairs) in self.valid.items():
                psnr, images = validate(self.session, self.training, pairs, SCALES[self.args.scale])
                record[key] = round(psnr, 4)
            better = psnr >= self.run.best_psnr  # or later weights, where PSNR is infinite
            if better:
                self.run.save_best(step, psnr)
        say("step %7d  PSNR of %s, best %.3f dB" % (step, ", ".join(
            "%s %.3f dB" % (name, record[key]) for key, (name, _) in self.valid.items()), self.run.best_psnr))
        self.run.log(record, [image[:128, :128] for image in images[:4]] if better else ())

    def is_sound(self):
        """Whether the weights have a loss on the patches of the step that made them; the loss of that step was of those before
        it. Weights as they were loaded are sound."""
        return self.applied is None or self.session.run(self.training.loss, self.applied) < MAX_LOSS

    def give_up(self, step, loss, norm):
        """Raise UserError for a training that diverges, and leave a state from which the same command goes on, if there is a good
        one: with the weights of now if they are sound, else with those last saved; in either case with the patches after `step`."""
        if not self.is_sound():
            if not self.run.restore_state():
                raise divergence(step, loss, norm)
            load_values(self.session, [self.training.step], [step])
        self.run.save_state(step)
        raise divergence(step, loss, norm, self.run.state)


def add_data_options(parser):
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="DIR", help="photographs, searched recursively")
    group.add_argument("--records", metavar="DIR", help="train on TFRecords, first written here from --data if that is given")
    group.add_argument("--prepare", action="store_true", help="only write the records")
    group.add_argument("--pairs", type=positive(int), default=80000, metavar="N", help="how many records to write (default 80000)")
    group.add_argument("--shards", type=positive(int), default=16, metavar="N", help="in how many files (default 16)")
    group.add_argument("--valid", default="Sample", metavar="NAME", help="data set for validation (default Sample)")
    add_valid_share(group)
    add_data_dir(group)


def add_run_options(parser):
    group = parser.add_argument_group("run")
    group.add_argument("--run", metavar="DIR", help="its folder (default runs/<model>_<scale>)")
    group.add_argument("--init-from", metavar="CHECKPOINT", help="start from the weights of this or of another scale or depth: prefix, .index file or folder")
    group.add_argument("--without", choices=ABLATIONS, help="train an ablation: without DRA, its dynamics, or RSA")
    group.add_argument("--seed", type=not_negative(int), default=0, metavar="N", help="of initial weights and patches (default 0)")
    group.add_argument("--valid-every", type=positive(int), default=1000, metavar="STEPS", help="default 1000")
    group.add_argument("--log-every", type=positive(int), default=100, metavar="STEPS", help="default 100")
    group.add_argument("--save-minutes", type=not_negative(float), default=10, metavar="MINUTES",
                       help="between two states, from which a killed run resumes (default 10)")


def add_device_options(parser):
    group = parser.add_argument_group("devices")
    group.add_argument("--gpu", type=gpus, default=[0], metavar="I[,J...]",
                       help="index of the GPU, cpu or -1 for the CPU; the batch is split over several (default 0)")
    add_precision(group)
    group.add_argument("--threads", type=positive(int), default=cpu_count(), metavar="N",
                       help="of TensorFlow on the CPU (default: one for each processor)")
    group.add_argument("--workers", type=positive(int), default=cpu_count(), metavar="N",
                       help="threads that read photographs (default: one for each processor)")
    group.add_argument("--chief-timeout", type=positive(float), default=30, metavar="MINUTES",
                       help="in a cluster, end a worker or parameter server whose chief is gone for so long (default 30)")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_variant(parser)
    for add_options in add_data_options, add_recipe_options, add_run_options, add_device_options:
        add_options(parser)
    args = parser.parse_args()
    if not (args.data or args.records):
        parser.error("give photographs by --data or records by --records")
    if args.without and args.init_from:
        parser.error("--without trains from scratch, without --init-from")
    if args.prepare and not (args.data and args.records):
        parser.error("--prepare needs --data and --records")
    if args.candidates and not args.data:
        parser.error("--candidates goes with --data: records hold the patches that were chosen")
    if args.valid_share and not args.data:
        parser.error("--valid-share goes with --data: it holds out photographs")
    if args.pairs < args.shards:
        parser.error("--pairs %d cannot fill --shards %d" % (args.pairs, args.shards))
    args.run = args.run or os.path.join("runs", "%s_%s" % (args.model, args.scale))
    if set(args.run) & PATTERN_CHARACTERS:
        parser.error("--run %s: TensorFlow takes the characters *?[ for a pattern" % args.run)
    return args


if __name__ == "__main__":
    outlive_readers()
    run_main(lambda: train(parse_args()))
