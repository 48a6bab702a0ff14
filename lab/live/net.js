// A dense net, its loss, and its gradient by backpropagation: what PyTorch's autograd finds.

export class Net {
  // sizes: how many units each layer has, from inputs to outputs. activation: "relu" or "tanh",
  // between layers. loss: "mse_loss" or "cross_entropy". capacity: samples that it takes at once.
  constructor({ sizes, activation, loss }, capacity) {
    const arrays = (size) => Array.from({ length: size }, () => new Float64Array(capacity));
    this.sizes = sizes;
    this.units = sizes.map(arrays); // units[layer][unit][sample], after the activation
    this.errors = sizes.map(arrays); // how the loss changes with each, before the activation
    this.activation = ACTIVATIONS[activation];
    this.loss = LOSSES[loss];
  }

  get outputs() {
    return this.units.at(-1);
  }

  // Compute all units for n samples, whose inputs lie in units[0]. theta holds all weights, in the
  // order of net.parameters(): of each layer the weights, output by output, and the biases.
  forward(theta, n) {
    let w = 0;
    for (let layer = 1; layer < this.sizes.length; layer++) {
      const [below, above] = [this.units[layer - 1], this.units[layer]];
      const biases = w + below.length * above.length;
      for (let j = 0; j < above.length; j++) {
        const unit = above[j];
        setLine(unit, theta[biases + j], theta[w++], below[0], n);
        for (let i = 1; i < below.length; i++) addMultiple(unit, theta[w++], below[i], n);
        if (layer < this.sizes.length - 1) this.activation.forward(unit, n);
      }
      w = biases + above.length;
    }
  }

  // The mean loss over n samples, whose targets lie unit by unit, too; and, in the last errors, how
  // it changes with each output. To be called after forward.
  lossOf(targets, n) {
    return this.loss(this.outputs, targets, this.errors.at(-1), n);
  }

  // The gradient of that loss: into g, in the order of theta. To be called after lossOf.
  backward(theta, g, n) {
    let end = theta.length;
    for (let layer = this.sizes.length - 1; layer > 0; layer--) {
      const [below, errors] = [this.units[layer - 1], this.errors[layer]];
      const errorsBelow = this.errors[layer - 1];
      const biases = end - errors.length;
      const weights = biases - below.length * errors.length;
      for (let j = 0; j < errors.length; j++) g[biases + j] = sum(errors[j], n);
      for (let i = 0; i < below.length; i++) {
        for (let j = 0; j < errors.length; j++) {
          g[weights + j * below.length + i] = dot(errors[j], below[i], n);
        }
        if (layer === 1) continue; // nobody asks for the errors of the inputs
        setLine(errorsBelow[i], 0, theta[weights + i], errors[0], n);
        for (let j = 1; j < errors.length; j++) {
          addMultiple(errorsBelow[i], theta[weights + j * below.length + i], errors[j], n);
        }
        this.activation.backward(errorsBelow[i], below[i], n);
      }
      end = weights;
    }
  }
}

// What stands between layers, in place; and its derivative, by which an error is multiplied, from
// the unit as it is after the activation. relu has no `if`: a processor would guess wrong half of
// the time, which costs more than all the arithmetic.
const ACTIVATIONS = {
  relu: {
    forward(unit, n) {
      for (let s = 0; s < n; s++) unit[s] = 0.5 * (unit[s] + Math.abs(unit[s]));
    },
    backward(error, unit, n) {
      for (let s = 0; s < n; s++) error[s] *= +(unit[s] > 0);
    },
  },
  tanh: {
    forward(unit, n) {
      for (let s = 0; s < n; s++) unit[s] = Math.tanh(unit[s]);
    },
    backward(error, unit, n) {
      for (let s = 0; s < n; s++) error[s] *= 1 - unit[s] * unit[s];
    },
  },
};

const LOSSES = {
  // The mean of (output - target)².
  mse_loss(outputs, targets, errors, n) {
    const count = n * outputs.length;
    let total = 0;
    for (let j = 0; j < outputs.length; j++) {
      const [output, target, error] = [outputs[j], targets[j], errors[j]];
      for (let s = 0; s < n; s++) {
        const difference = output[s] - target[s];
        total += difference * difference;
        error[s] = (2 * difference) / count;
      }
    }
    return total / count;
  },

  // The mean of -log(probability of the right class), the probabilities by softmax.
  cross_entropy(outputs, [classes], errors, n) {
    let total = 0;
    for (let s = 0; s < n; s++) {
      const largest = Math.max(...outputs.map((output) => output[s]));
      let [sumOfAll, right] = [0, 0];
      for (let j = 0; j < outputs.length; j++) sumOfAll += Math.exp(outputs[j][s] - largest);
      for (let j = 0; j < outputs.length; j++) {
        const probability = Math.exp(outputs[j][s] - largest) / sumOfAll;
        errors[j][s] = (probability - (classes[s] === j)) / n;
        if (classes[s] === j) right = outputs[j][s];
      }
      total += largest + Math.log(sumOfAll) - right;
    }
    return total / n;
  },
};

// Sums over n samples go in four parts, which a processor adds at the same time.

function dot(a, b, n) {
  let first = 0,
    second = 0,
    third = 0,
    fourth = 0,
    s = 0;
  for (; s + 3 < n; s += 4) {
    first += a[s] * b[s];
    second += a[s + 1] * b[s + 1];
    third += a[s + 2] * b[s + 2];
    fourth += a[s + 3] * b[s + 3];
  }
  for (; s < n; s++) first += a[s] * b[s];
  return first + second + (third + fourth);
}

function sum(a, n) {
  let first = 0,
    second = 0,
    third = 0,
    fourth = 0,
    s = 0;
  for (; s + 3 < n; s += 4) {
    first += a[s];
    second += a[s + 1];
    third += a[s + 2];
    fourth += a[s + 3];
  }
  for (; s < n; s++) first += a[s];
  return first + second + (third + fourth);
}

function setLine(a, start, factor, b, n) {
  for (let s = 0; s < n; s++) a[s] = start + factor * b[s];
}

function addMultiple(a, factor, b, n) {
  for (let s = 0; s < n; s++) a[s] += factor * b[s];
}
