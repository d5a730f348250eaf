"""A plan carried out in one process: what each training starts from, how much time it gets, what is done and what it came to.

OUT holds progress.json and summary.csv, <name>.npz of every training that is done, <name>/ with the state of the one that is not,
and cache/, compiled programs. What a plan says stands in plan.py, one training in trainer.py.
"""
import json
import os
import shutil
from collections import namedtuple

from tools.command import UserError
from tools.files import to_csv, write_json, write_text
from tools.gpu.files import read_trained
from tools.gpu.jax_graph import load_graph
from tools.gpu.plan import SCRATCH, graph_path, recipe_of, start_path, time_for
from tools.gpu.programs import Stopped
from tools.gpu.schedule import ClockSchedule, precision_of
from tools.gpu.trainer import Job, Trainer
from tools.gpu.training import new_state
from tools.gpu.trial import Setting, Trial, choose_setting
from tools.training.history import Divergence, history_of
from tools.weights import describe_transfer, initial_weights, transfer

import numpy as np

ATTEMPTS = 3  # at a training that diverges, each with other patches from its last good weights
COLUMNS = ("name", "model", "scale", "start", "status", "precision", "batch", "patch", "steps", "seconds", "megapixels",
           "pixels_per_second", "loss", "psnr")

# out, graphs: folders; seconds: of the whole plan; pinned: {key: value} of a Recipe; precision: pinned, or None; seed: of initial
# weights and patches
PlanSettings = namedtuple("PlanSettings", "out graphs seconds pinned precision seed")


class PlanRun(object):
    """A plan, a list of Entries, in training. The time that it has used is that of all its commands from begin to end."""

    def __init__(self, plan, settings, images, programs, options, begun):
        """images: a TileStore, and {factor: (LR, HR) pairs} to validate on. begun: when this command began, by options.clock."""
        self.plan, self.settings, self.programs, self.options = plan, settings, programs, options
        self.store, self.valid = images
        self.graphs = {entry.name: load_graph(graph_path(settings.graphs, entry)) for entry in plan}
        self.path = os.path.join(settings.out, "progress.json")
        self.progress = {"seconds": 0.0, "chosen": {}, "trainings": {}}
        if os.path.exists(self.path):
            try:
                with open(self.path) as file:
                    self.progress = json.load(file)
            except ValueError as error:
                raise UserError("cannot read %s: %s: copy it anew, or give another --out" % (self.path, error))
        self.begun, self.before = begun, self.progress["seconds"]

    def used(self):
        """Seconds that the plan has used, in this and all earlier commands."""
        return self.before + self.options.clock() - self.begun

    def weights_path(self, name):
        return os.path.join(self.settings.out, name + ".npz")

    def is_done(self, entry):
        """Whether a training is done; its weights may since have been taken elsewhere."""
        status = self.progress["trainings"].get(entry.name, {}).get("status")
        return status == "done" or os.path.exists(self.weights_path(entry.name))

    def note(self, name, **values):
        """Keep values of a training in progress.json and summary.csv, with the time used."""
        self.progress["trainings"].setdefault(name, {}).update(values)
        self.progress["seconds"] = round(self.used(), 3)
        write_json(self.path, self.progress)
        rows = [COLUMNS]
        for entry in self.plan:
            known = dict(entry._asdict(), precision=entry.precision or "", status="waiting")
            known.update(self.progress["trainings"].get(entry.name, {}))
            rows.append([known.get(column, "") for column in COLUMNS])
        write_text(os.path.join(self.settings.out, "summary.csv"), to_csv(rows))

    def run(self):
        """Train all that is not done, in order. Returns the names of those that could not be trained."""
        failed = []
        for entry in self.plan:
            if self.options.stop:
                break
            if self.is_done(entry):
                print("%s is done" % entry.name, flush=True)
            elif entry.start in failed:
                print("%s is left out, since it starts from %s" % (entry.name, entry.start), flush=True)
                failed.append(entry.name)
            elif self.used() >= self.settings.seconds and "total" not in self.progress["trainings"].get(entry.name, {}):
                print("no time is left for %s: give more --minutes" % entry.name, flush=True)
            elif not self.attempt(entry):
                failed.append(entry.name)
        return failed

    def attempt(self, entry):
        """Train one entry to its end or until stopped; False if it keeps diverging, which is told in a line."""
        for _ in range(ATTEMPTS):
            try:
                self.train(entry)
                return True
            except Stopped:
                return True
            except Divergence as error:
                print("%s: %s" % (entry.name, error), flush=True)
        self.note(entry.name, status="diverges")
        return False

    def train(self, entry):
        """Train one entry, and put its weights beside the others if it is done. Raises Divergence."""
        job, tiles = self.job(entry)
        words = ", ".join("%s %s" % item for item in job.recipe._asdict().items() if item[0] != "steps")
        print("%s from %s: %s" % (entry.name, entry.start, words), flush=True)
        self.note(entry.name, status="training")  # what is used so far, should compiling be the last that this process does
        trainer = Trainer(job, tiles, self.programs, self.options._replace(valid=self.valid.get(job.graph.factor, [])))
        total = self.progress["trainings"][entry.name].get("total")
        trainer.request_programs(ClockSchedule(job.recipe, np.inf if total is None else total))
        if total is None:
            left = [one for one in self.plan if not self.is_done(one)]
            total = round(time_for(entry, left, self.settings.seconds - self.used()), 3)
        self.note(entry.name, total=total)
        following = [one for one in self.plan[self.plan.index(entry) + 1:] if not self.is_done(one)]

        def progress():
            self.note(entry.name, **self.row(trainer))
            if following:
                self.request_ahead(following[0])
                following.clear()

        if trainer.train(ClockSchedule(job.recipe, total), progress):
            trainer.write_trained(self.weights_path(entry.name))
            self.note(entry.name, status="done", **self.row(trainer))
            shutil.rmtree(job.folder, ignore_errors=True)

    def row(self, trainer):
        """What summary.csv says of a training."""
        recipe, last = trainer.job.recipe, trainer.records[-1] if trainer.records else {}
        pixels = trainer.step * recipe.batch * recipe.patch ** 2
        return dict(precision=trainer.job.precision, batch=recipe.batch, patch=recipe.patch, steps=trainer.step,
                    seconds=round(trainer.seconds, 1), megapixels=round(pixels / 1e6, 3),
                    pixels_per_second=round(pixels / trainer.seconds) if trainer.seconds else "",
                    loss=last.get("loss", ""), psnr=last.get("psnr", ""))

    def job(self, entry):
        """The Job of an entry, and its Tiles."""
        graph, chosen, folder = self.graphs[entry.name], self.chosen(), os.path.join(self.settings.out, entry.name)
        recipe = recipe_of(entry, self.settings.pinned, {"batch": chosen.batch})
        precision = self.settings.precision or entry.precision or chosen.precision
        seed = self.settings.seed + self.plan.index(entry)  # or a training would see the patches of the one before it again
        begun = os.path.exists(os.path.join(folder, "state.npz"))
        weights, before = (None, []) if begun else self.start(entry)
        config = dict(recipe._asdict(), steps=None, model=graph.model, scale=graph.scale, recipe="fast", seed=seed,
                      init_from=None if entry.start == SCRATCH else entry.start, trained_before=before,
                      held_out=self.store.held_out)
        return Job(folder, graph, recipe, precision, seed, lambda: weights, config), self.store.tiles(graph.factor, recipe.patch)

    def start(self, entry):
        """The weights that an entry starts with, and the configs of the trainings that led to them. Raises UserError."""
        own = initial_weights(self.graphs[entry.name].variables, self.settings.seed)
        if entry.start == SCRATCH:
            return own, []
        earlier = entry.start in [one.name for one in self.plan]
        path = self.weights_path(entry.start) if earlier else start_path(self.settings.graphs, entry.start)
        if not os.path.exists(path):
            raise UserError("%s starts from %s, which is not there: %s" % (entry.name, path, (
                "bring it back" if earlier else "write it by prepare.py")))
        source = read_trained(path)
        values, taken = transfer(source.weights, own, entry.start)
        print("%s: %s" % (entry.name, describe_transfer(taken, own, path)), flush=True)
        return values, history_of(source.config, entry.start)

    def chosen(self):
        """The Setting for all that neither command nor plan pin, measured on the first training if that is not yet done."""
        if not self.progress["chosen"]:
            entry, graph = self.plan[0], self.graphs[self.plan[0].name]
            precision = self.settings.precision or entry.precision
            batch = self.settings.pinned.get("batch") or entry.changes.get("batch")
            recipe = recipe_of(entry, self.settings.pinned, {})
            trial = Trial(graph, recipe, self.start(entry)[0], self.store.tiles(graph.factor, recipe.patch), self.programs,
                          self.options.dispatch, self.settings.seed)
            self.progress["chosen"] = choose_setting(trial, precision, batch)._asdict()
            write_json(self.path, self.progress)
        return Setting(**self.progress["chosen"])

    def request_ahead(self, entry):
        """Have the programs of an entry compiled meanwhile, if that takes long."""
        graph, chosen = self.graphs[entry.name], self.chosen()
        recipe = recipe_of(entry, self.settings.pinned, {"batch": chosen.batch})
        state = new_state({name: np.zeros(shape, np.float32) for name, shape in graph.variables.items()}, recipe, 0)
        precision = self.settings.precision or entry.precision or chosen.precision
        for share in 0, 1:
            self.programs.request_ahead(graph, recipe, precision_of(precision, share), state,
                                        self.store.tiles(graph.factor, recipe.patch), self.options.dispatch)
