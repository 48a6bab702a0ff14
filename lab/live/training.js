// One training: a net from its first weights, on its mini-batches in their order.

import { Net } from "./net.js";
import { RULES, step } from "./optimizers.js";

export class Training {
  // problem: the net's shape and loss, and the order of the mini-batches: see data.js. data: what
  // it trains on and what is held out. optimizer: the name of its rule, and its hyperparameters.
  constructor(problem, { train, heldOut, firstWeights }, optimizer, { batchSize, epochs }) {
    Object.assign(this, { problem, train, heldOut, optimizer });
    this.batchSize = Math.min(batchSize, train.n);
    this.stepsPerEpoch = Math.ceil(train.n / this.batchSize);
    this.steps = epochs * this.stepsPerEpoch;
    this.net = new Net(problem, this.batchSize);
    this.targets = train.y.map(() => new Float64Array(this.batchSize));
    this.rule = RULES[optimizer.rule];
    this.theta = Float64Array.from(firstWeights);
    this.g = new Float64Array(this.theta.length);
    this.memory = {};
    for (const name of this.rule.memory) this.memory[name] = new Float64Array(this.theta.length);
    this.losses = new Float64Array(this.steps);
    this.t = 0; // steps taken
    this.diverged = false;
  }

  get isDone() {
    return this.diverged || this.t === this.steps;
  }

  // Go on for so many steps, or to the end.
  advance(steps = Infinity) {
    for (; steps > 0 && !this.isDone; steps--) this.step();
    return this;
  }

  // Take the next step: the loss of its mini-batch, then the gradient, then the update. A training
  // ends with the first loss that is not finite, as float32 has it.
  step() {
    const { net, theta, g } = this;
    const n = this.load(this.t);
    net.forward(theta, n);
    const loss = Math.fround(net.lossOf(this.targets, n));
    this.losses[this.t++] = loss;
    if (Number.isFinite(loss)) {
      net.backward(theta, g, n);
      step(this.rule, theta, g, this.memory, this.optimizer, this.t);
    } else {
      this.diverged = true;
    }
  }

  // Lay the mini-batch of a step before the net; return how many samples it has.
  load(t) {
    const { net, targets, train } = this;
    const { order } = this.problem;
    const epoch = Math.floor(t / this.stepsPerEpoch);
    const from = (t % this.stepsPerEpoch) * this.batchSize;
    const n = Math.min(this.batchSize, train.n - from);
    const first = epoch * train.n + from;
    for (let i = 0; i < train.x.length; i++) gather(net.units[0][i], train.x[i], order, first, n);
    for (let j = 0; j < train.y.length; j++) gather(targets[j], train.y[j], order, first, n);
    return n;
  }

  // The losses, to the end of the training or to where it is.
  get history() {
    return this.losses.subarray(0, this.t);
  }

  // The net after its forward pass over a whole data set, or over any inputs.
  forwardOver({ x, n }) {
    const net = wholeNet(this.problem, n);
    x.forEach((values, i) => net.units[0][i].set(values));
    net.forward(this.theta, n);
    return net;
  }

  // The loss over a whole data set: infinite if the training diverged.
  lossOver(data) {
    if (this.diverged) return Infinity;
    const loss = Math.fround(this.forwardOver(data).lossOf(data.y, data.n));
    return Number.isFinite(loss) ? loss : Infinity;
  }

  // The losses after training, computed once.
  get end() {
    this.known ??= { loss: this.lossOver(this.train), heldOutLoss: this.lossOver(this.heldOut) };
    return this.known;
  }

  // The share of the held-out set that is classified right.
  get accuracy() {
    const { outputs } = this.forwardOver(this.heldOut);
    const classes = this.heldOut.y[0];
    return (
      classes.reduce((right, own, s) => right + (classOf(outputs, s) === own), 0) / classes.length
    );
  }
}

// The class that the outputs give to a sample: that of the largest.
export function classOf(outputs, s) {
  let best = 0;
  for (let j = 1; j < outputs.length; j++) if (outputs[j][s] > outputs[best][s]) best = j;
  return best;
}

function gather(into, values, order, first, n) {
  for (let s = 0; s < n; s++) into[s] = values[order[first + s]];
}

// A net that takes n samples at once; one for each n is made, and kept.
function wholeNet(problem, n) {
  problem.wholeNets ??= new Map();
  if (!problem.wholeNets.has(n)) problem.wholeNets.set(n, new Net(problem, n));
  return problem.wholeNets.get(n);
}
