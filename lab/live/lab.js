// All that is trained for a setting: piece by piece, so that the page never stands still.

import { dataOf, problemOf } from "./data.js";
import { Recorder } from "./inside.js";
import { RATES } from "./setting.js";
import { Training } from "./training.js";

const PIECE = 512; // samples, after which the clock is read

export class Lab {
  constructor(embedded) {
    this.embedded = embedded;
    this.problem = problemOf(embedded);
    this.data = new Map(); // what has been decoded, by seed and noise
    this.runs = []; // one an optimizer that is on: { optimizer, key, trainings }
    this.sweeps = new Map(); // losses after training, a rate each, by all that is set but the rate
    this.recorder = null;
    this.limit = Infinity; // no training goes beyond this step, for now
    this.trained = 0; // trainings that came to their end, since the page was opened
  }

  // From now on train this. What is the same as before stays: it would come out the same.
  set(setting, isAnew = false) {
    const { batchSize, epochs, noise, seed } = setting;
    this.setting = { ...setting }; // as it is now: the page goes on changing its own
    this.shared = JSON.stringify({ batchSize, epochs, noise });
    this.piece = Math.max(1, Math.floor(PIECE / batchSize));
    const first = this.embedded.seeds.findIndex((one) => one.seed === seed);
    const numbers = Array.from({ length: setting.seeds }, (_, k) => first + k);
    const room = this.embedded.seeds.length;
    const before = isAnew ? [] : this.runs;
    this.since = performance.now();
    this.runs = setting.optimizers
      .filter(({ isOn }) => isOn)
      .map((one) => {
        const optimizer = { ...one };
        const key = JSON.stringify({ ...optimizer, numbers }) + this.shared;
        const trainings = () => numbers.map((k) => this.training(optimizer, k % room));
        return before.find((run) => run.key === key) ?? { optimizer, key, trainings: trainings() };
      });
    this.sweepsNow = this.runs.map(({ optimizer: { label, lr, ...others } }) => {
      const key = JSON.stringify({ ...others, first }) + this.shared;
      if (!this.sweeps.has(key)) this.sweeps.set(key, { losses: [], training: null });
      return { label, others, first, sweep: this.sweeps.get(key) };
    });
    if (this.sweeps.size > 200) this.sweeps.clear(); // they are made again where they are needed
    this.record();
  }

  training(optimizer, number) {
    const { noise } = this.setting;
    const key = `${number} ${noise}`;
    if (this.data.size > 100) this.data.clear();
    if (!this.data.has(key)) this.data.set(key, dataOf(this.embedded, number, noise));
    return new Training(this.problem, this.data.get(key), optimizer, this.setting);
  }

  // Make a recorder, if one looks inside a step, and unless there is the right one.
  record() {
    const { inside, of, weight } = this.setting;
    const run = inside && this.runs.find(({ optimizer }) => optimizer.label === of);
    if (!run) {
      this.recorder = null;
    } else if (this.recorder?.key !== `${run.key} ${weight}`) {
      const first = this.embedded.seeds.findIndex((one) => one.seed === this.setting.seed);
      const training = this.training(run.optimizer, first);
      this.recorder = new Recorder(training, weight, `${run.key} ${weight}`);
    }
  }

  // Go on for so many milliseconds. Return whether there is more to do.
  work(milliseconds) {
    const end = performance.now() + milliseconds;
    for (const next of [() => this.trainOn(), () => this.recordOn(), () => this.sweepOn()]) {
      while (next()) if (performance.now() > end) return true;
    }
    return false;
  }

  // A piece of the training that is furthest behind; false if all are at their end.
  trainOn() {
    let behind = null;
    for (const { trainings } of this.runs) {
      for (const training of trainings) {
        const isOpen = !training.isDone && training.t < this.limit;
        if (isOpen && !(behind?.t <= training.t)) behind = training;
      }
    }
    if (!behind) return false;
    behind.advance(Math.min(this.piece, this.limit - behind.t));
    if (behind.isDone) this.trained++;
    return true;
  }

  recordOn() {
    return this.limit === Infinity && (this.recorder?.advance(this.piece) ?? false);
  }

  // A piece of a training at the next rate of some curve; false if all curves are complete.
  sweepOn() {
    if (this.limit < Infinity) return false;
    const open = this.sweepsNow.find(({ sweep }) => sweep.losses.length < RATES.length);
    if (!open) return false;
    const { others, first, sweep } = open;
    sweep.training ??= this.training({ ...others, lr: RATES[sweep.losses.length] }, first);
    if (sweep.training.advance(this.piece).isDone) {
      sweep.losses.push(sweep.training.end.loss);
      sweep.training = null;
    }
    return true;
  }

  get isDone() {
    return this.runs.every(({ trainings }) => trainings.every(({ isDone }) => isDone));
  }

  // The steps of each training.
  get steps() {
    const { batchSize, epochs } = this.setting;
    return epochs * Math.ceil(this.embedded.samples / batchSize);
  }
}
