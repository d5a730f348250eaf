"""Train DRSAN on photographs: python train.py --gpu 0 --model 32s --scale x2 --data data/DIV2K/DIV2K_train_HR

A run lives in runs/<model>_<scale>: config.json, log.jsonl, state/ (the training state, from which the same
command resumes) and best/ (the weights with the best validation PSNR, for test.py --checkpoint). The recipe,
the graph and the run stand in tools/training/, what is read in tools/data/; here they come together.
"""
import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from model import ABLATIONS, SCALES, model_variables
from ops import tf
from tools.checkpoints import (PATTERN_CHARACTERS, checkpoint_prefix, find_checkpoint, load_values, note_seen,
                               training_history, transfer_weights)
from tools.command import UserError, cpu_count, not_negative, positive, run_main, say
from tools.data.patches import Sampler
from tools.data.photographs import describe_data, hold_out, in_threads, load_photographs, open_valid
from tools.data.records import list_records, open_records
from tools.files import check_writable, locked
from tools.options import add_data_dir, add_precision, add_valid_share, add_variant, gpus
from tools.runtime import check_precision, error_reason
from tools.training.cluster import Devices, Watch, end, other_tasks, read_cluster, serve, watching
from tools.training.graph import averaged_weights, build_training, judge_dra, validate
from tools.training.recipes import MAX_LOSS, MAX_SKIPPED, add_recipe_options, choose_recipe, learning_rate
from tools.training.run import Divergence, Meter, Run

import numpy as np


def parse_args(argv=None):
    """The knobs of a training; each value of its recipe has one, too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_variant(parser)
    group, count = parser.add_argument_group("data"), positive(int)
    add = group.add_argument
    add("--data", metavar="DIR", help="photographs, searched recursively")
    add("--records", metavar="DIR", help="train on TFRecords; with --data, they are written here first")
    add("--prepare", action="store_true", help="only write the records")
    add("--pairs", type=count, default=80000, metavar="N", help="how many records to write (default 80000)")
    add("--shards", type=count, default=16, metavar="N", help="in how many files (default 16)")
    add("--valid", default="Sample", metavar="NAME", help="data set or folder to judge by (default Sample)")
    add_valid_share(group)
    add_data_dir(group)
    add_recipe_options(parser)
    add = parser.add_argument_group("run").add_argument
    add("--run", metavar="DIR", help="its folder (default runs/<model>_<scale>)")
    add("--init-from", metavar="CHECKPOINT", help="start from these weights, also of another scale or depth")
    add("--without", choices=ABLATIONS, help="train an ablation: without DRA, its dynamics, or RSA")
    add("--seed", type=not_negative(int), default=0, metavar="N", help="of weights and patches (default 0)")
    add("--valid-every", type=count, default=1000, metavar="STEPS", help="default 1000")
    add("--log-every", type=count, default=100, metavar="STEPS", help="default 100")
    add("--save-minutes", type=not_negative(float), default=10, metavar="N", help="between saves, default 10")
    group = parser.add_argument_group("devices")
    add = group.add_argument
    add("--gpu", type=gpus, default=[0], metavar="I[,J...]",
        help="index of the GPU, cpu or -1 for the CPU; the batch is split over several (default 0)")
    add_precision(group)
    add("--threads", type=count, default=cpu_count(), metavar="N", help="used by TensorFlow (default: all)")
    add("--workers", type=count, default=cpu_count(), metavar="N", help="threads that read (default: all)")
    add("--chief-timeout", type=positive(float), default=30, metavar="MINUTES",
        help="in a cluster, end a task whose chief is gone for so long (default 30)")
    args = parser.parse_args(argv)
    args.run = args.run or os.path.join("runs", "%s_%s" % (args.model, args.scale))
    for wrong, message in (
            (not (args.data or args.records), "give photographs by --data or records by --records"),
            (args.without and args.init_from, "--without trains from scratch, without --init-from"),
            (args.prepare and not (args.data and args.records), "--prepare needs --data and --records"),
            (args.candidates and not args.data, "--candidates goes with --data: records were chosen"),
            (args.textures and not args.data, "--textures goes with --data: records are as they are"),
            (args.valid_share and not args.data, "--valid-share goes with --data: it holds out photographs"),
            (args.pairs < args.shards, "--pairs %d cannot fill --shards %d" % (args.pairs, args.shards)),
            (set(args.run) & PATTERN_CHARACTERS, "--run %s: TensorFlow takes *?[ for a pattern" % args.run)):
        if wrong:
            parser.error(message)
    return args


def main(argv=None):
    """Train from where the run was left; returns the exit status, after a signal 128 and its number."""
    args, cluster = parse_args(argv), read_cluster()
    if cluster and cluster.type != "chief":
        return serve(cluster, args.gpu, args.chief_timeout)
    watch = Watch(other_tasks(cluster))
    with watching(watch.check):
        check_precision(args.precision)
        check_writable([None if args.prepare else args.run, args.records if args.data else None])
        recipe, sampler = choose_recipe(args, args.model, args.scale), None
        if args.records:
            sampler, recipe = open_records(args, recipe, lambda: open_photographs(args, recipe))
        if args.prepare:
            return 0
        held_out = hold_out(args.data, args.valid_share)[1] if args.valid_share else []
        run, start = open_run(args, recipe, held_out)
        valid = open_valid(args.valid, held_out, SCALES[args.scale], args.data_dir)
        sampler = sampler or open_photographs(args, recipe)
        say("recipe %s: %s" % (args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())))
        with locked(run.folder, "trains in", "--run"):
            step = Trainer(args, recipe, run, sampler, valid, watch).train(start, cluster)
    status, message = 0, "done: %s" % run.best
    if step < recipe.steps:
        status, message = 128 + watch.signal, "stopped at step %d; the same command resumes" % step
    if cluster:  # TensorFlow would wait for the other tasks, and they for this one
        end(status, message)
    say(message)
    return status


def open_photographs(args, recipe):
    """The Sampler of the photographs below --data."""
    factor = SCALES[args.scale]
    photographs = load_photographs(args.data, factor, recipe.patch, args.workers, args.valid_share)
    say("%d photographs, %.1f megapixels" % (len(photographs), sum(hr.size for _, hr in photographs) / 3e6))
    return Sampler(photographs, factor, recipe.batch, recipe.patch, args.seed, recipe.candidates,
                   recipe.textures)


def open_run(args, recipe, held_out):
    """The Run that the options name, and the checkpoint it starts from: None if it resumes or starts from
    scratch."""
    start = None
    if args.init_from is not None and not checkpoint_prefix(os.path.join(args.run, "state")):
        start = find_checkpoint(args.model, args.scale, args.init_from)
    names = [os.path.relpath(path, args.data) for path in held_out]
    if start:
        note_seen(start, names)
    data = describe_data(args.records, list_records) if args.records else describe_data(args.data)
    same = {key: getattr(args, key) for key in (
        "model", "scale", "recipe", "seed", "init_from", "without", "precision", "valid", "valid_share")}
    return Run(args.run, dict(recipe._asdict(), data=data, held_out=names,
                              trained_before=training_history(start) if start else [], **same)), start


class Trainer(object):
    """A run in training: its graph on its devices, and the loop that trains, logs, validates and saves.

    sampler: the batch of a step, as a function. valid: as open_valid() gives it. watch: tells when to stop.
    applied: what was fed to the last step that was not skipped, None before one.
    """

    def __init__(self, args, recipe, run, sampler, valid, watch):
        self.args, self.recipe, self.run = args, recipe, run
        self.sampler, self.valid, self.watch = sampler, valid, watch

    def train(self, start, cluster):
        """Build the graph and optimize() in it, again from the last state if a task of a cluster is lost; an
        error is told to its other tasks, which then end, too."""
        args = self.args
        devices = self.devices = Devices(args.gpu, args.threads, self.recipe.batch, cluster)
        check_precision(args.precision, devices.on_cpu)
        try:
            tf.set_random_seed(args.seed)
            self.training = build_training(args.model, args.scale, self.recipe, devices.names, args.without,
                                           args.precision, devices.compiled)
            self.run.build(devices.chief)
            tf.get_default_graph().finalize()
            step = None
            while step is None:
                try:
                    with devices.connect() as session:
                        step = self.optimize(session, start)
                except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
                    if not devices.others:
                        raise
                    say("lost a task of the cluster (%s): going on from the last state when all are there"
                        % error_reason(error))
        except Exception as error:
            devices.tell(False)
            if isinstance(error, tf.errors.ResourceExhaustedError):
                raise UserError("not enough memory: lower --batch or --patch, or give --valid smaller images")
            raise
        if step == self.recipe.steps:
            devices.tell(True)
        return step

    def optimize(self, session, start):
        """Train from the last state, or else from the checkpoint `start` (None: initial weights), to its last
        step or until stopped; returns the step reached, which is saved."""
        self.session, recipe, args, training = session, self.recipe, self.args, self.training
        step = first = self.start_or_resume(start)
        batches, saved = in_threads(self.sampler, range(step, recipe.steps), 1), time.time()
        self.applied, skips = None, 0  # skips: in a row
        with Meter(self.run, recipe, step) as meter:
            while step < recipe.steps and not self.watch.signal:
                with meter.waiting():
                    lr, hr = next(batches)
                feed = {training.lr: lr, training.hr: hr, training.rate: learning_rate(recipe, step)}
                _, loss, norm, skipped = session.run(
                    [training.train, training.loss, training.norm, training.skipped], feed)
                step, self.watch.begun = step + 1, True
                meter.add(loss, norm, skipped)
                self.applied, skips = (self.applied, skips + 1) if skipped else (feed, 0)
                if skips == MAX_SKIPPED:
                    self.give_up(step, loss, norm)
                if step % args.log_every == 0 or step == recipe.steps:
                    meter.log(step, feed[training.rate])
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

    def start_or_resume(self, start):
        """Bring what was saved last, or `start`, into the variables; returns the step reached."""
        session, training = self.session, self.training
        step = self.run.open(session, training.step)
        if step:
            name, best = list(self.valid.values())[-1][0], self.run.best_psnr
            say("resumed at step %d, %s" % (step, "before its first validation" if best == -np.inf else
                                            "best PSNR of %s %.3f dB" % (name, best)))
        elif start:
            say(transfer_weights(session, start)[1])
            load_values(session, training.averages, session.run(model_variables()))
        return step

    def validate(self, step, feed):
        """Say and log what the averaged weights reach on the validation sets, and save the best."""
        dra, rms = self.session.run([self.training.largest_dra, self.training.kernel_rms], feed)
        record = dict(step=step, seconds=round(self.run.seconds, 1), largest_dra=float("%.4g" % dra),
                      kernel_rms=float("%.4g" % rms))
        with averaged_weights(self.session, self.training):
            for key, (_, pairs) in self.valid.items():
                psnr, images = validate(self.session, self.training, pairs, SCALES[self.args.scale])
                record[key] = round(psnr, 4)
            ranges, worst = judge_dra(self.session, self.training, pairs)
            record["gate"] = worst and round(float(worst), 1)
            better = psnr >= self.run.best_psnr  # or later weights, where PSNR is infinite
            if better:
                self.run.save_best(step, psnr, ranges)
        say("step %7d  PSNR of %s, best %.3f dB" % (step, ", ".join(
            "%s %.3f dB" % (name, record[key]) for key, (name, _) in self.valid.items()), self.run.best_psnr))
        self.run.log(record, [image[:128, :128] for image in images[:4]] if better else ())

    def is_sound(self):
        """Whether the weights have a loss on the patches of the step that made them; that step's own loss is
        of the weights before it. Weights as they were loaded are sound."""
        return self.applied is None or self.session.run(self.training.loss, self.applied) < MAX_LOSS

    def give_up(self, step, loss, norm):
        """Raise Divergence. If there are good weights, those of now or those last saved, a state is left from
        which the same command goes on with new patches."""
        if not self.is_sound():
            if not self.run.restore_state():
                raise Divergence(step, loss, norm)
            load_values(self.session, [self.training.step], [step])
        self.run.save_state(step)
        raise Divergence(step, loss, norm, self.run.state)


if __name__ == "__main__":
    run_main(main)
