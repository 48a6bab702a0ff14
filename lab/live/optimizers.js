// The update rules, one after the other. Each moves all weights of a net, given their gradient:
//
//     update(theta, g, memory, hyperparameters, t)
//
// theta and g are flat arrays, one number a weight; theta is changed in place. t counts the steps
// from 1. What a rule remembers from step to step, an array each, starts at 0 and is named in
// `memory`. `inside` says for one weight, after the step, what came between its gradient and its
// step: terms by name, in the order in which they are computed; the last is the step itself.
// Names and formulas are PyTorch's; the same rules stand in Python in the folder optimizers/.

export const RULES = {
  SGD: {
    hyperparameters: { lr: 0.01, weight_decay: 0 },
    memory: [],
    formula: "θ ← θ − lr·g",
    update(theta, g, memory, { lr }) {
      for (let i = 0; i < theta.length; i++) theta[i] -= lr * g[i];
    },
    inside: (g, memory, { lr }) => ({ g, step: -lr * g }),
  },

  Momentum: {
    hyperparameters: { lr: 0.01, momentum: 0.8, weight_decay: 0 },
    memory: ["v"],
    formula: "v ← momentum·v + g,  θ ← θ − lr·v",
    update(theta, g, { v }, { lr, momentum }) {
      for (let i = 0; i < theta.length; i++) {
        v[i] = momentum * v[i] + g[i];
        theta[i] -= lr * v[i];
      }
    },
    inside: (g, { v }, { lr }) => ({ g, v, step: -lr * v }),
  },

  Nesterov: {
    hyperparameters: { lr: 0.01, momentum: 0.8, weight_decay: 0 },
    memory: ["v"],
    formula: "v ← momentum·v + g,  θ ← θ − lr·(g + momentum·v)",
    update(theta, g, { v }, { lr, momentum }) {
      for (let i = 0; i < theta.length; i++) {
        v[i] = momentum * v[i] + g[i];
        theta[i] -= lr * (g[i] + momentum * v[i]);
      }
    },
    inside(g, { v }, { lr, momentum }) {
      const ahead = g + momentum * v;
      return { g, v, "g + momentum·v": ahead, step: -lr * ahead };
    },
  },

  Adagrad: {
    hyperparameters: { lr: 0.01, eps: 1e-10, weight_decay: 0 },
    memory: ["s"],
    formula: "s ← s + g²,  θ ← θ − lr·g / (√s + eps)",
    update(theta, g, { s }, { lr, eps }) {
      for (let i = 0; i < theta.length; i++) {
        s[i] += g[i] * g[i];
        theta[i] -= (lr * g[i]) / (Math.sqrt(s[i]) + eps);
      }
    },
    inside(g, { s }, { lr, eps }) {
      const quotient = g / (Math.sqrt(s) + eps);
      return { g, s, "g / (√s + eps)": quotient, step: -lr * quotient };
    },
  },

  RMSprop: {
    hyperparameters: { lr: 0.01, alpha: 0.99, eps: 1e-8, weight_decay: 0 },
    memory: ["s"],
    formula: "s ← alpha·s + (1 − alpha)·g²,  θ ← θ − lr·g / (√s + eps)",
    update(theta, g, { s }, { lr, alpha, eps }) {
      for (let i = 0; i < theta.length; i++) {
        s[i] = alpha * s[i] + (1 - alpha) * g[i] * g[i];
        theta[i] -= (lr * g[i]) / (Math.sqrt(s[i]) + eps);
      }
    },
    inside(g, { s }, { lr, eps }) {
      const quotient = g / (Math.sqrt(s) + eps);
      return { g, s, "g / (√s + eps)": quotient, step: -lr * quotient };
    },
  },

  Adam: {
    hyperparameters: { lr: 0.001, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0 },
    memory: ["m", "v"],
    formula:
      "m ← β1·m + (1 − β1)·g,  v ← β2·v + (1 − β2)·g²,  " +
      "m̂ = m / (1 − β1ᵗ),  v̂ = v / (1 − β2ᵗ),  θ ← θ − lr·m̂ / (√v̂ + eps)",
    update(theta, g, { m, v }, { lr, beta1, beta2, eps }, t) {
      const [grown1, grown2] = [1 - beta1 ** t, 1 - beta2 ** t];
      for (let i = 0; i < theta.length; i++) {
        m[i] = beta1 * m[i] + (1 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
        theta[i] -= (lr * (m[i] / grown1)) / (Math.sqrt(v[i] / grown2) + eps);
      }
    },
    inside(g, { m, v }, { lr, beta1, beta2, eps }, t) {
      const [mHat, vHat] = [m / (1 - beta1 ** t), v / (1 - beta2 ** t)];
      const quotient = mHat / (Math.sqrt(vHat) + eps);
      return { g, m, v, "m̂ / (√v̂ + eps)": quotient, step: -lr * quotient };
    },
  },

  AdamW: {
    hyperparameters: { lr: 0.001, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 },
    memory: ["m", "v"],
    decoupled: true, // its weight decay shrinks the weights, and leaves the gradient alone
    get formula() {
      return `θ ← θ − lr·weight_decay·θ,  ${RULES.Adam.formula}`;
    },
    update: (...given) => RULES.Adam.update(...given),
    inside: (...given) => RULES.Adam.inside(...given),
  },

  Lion: {
    hyperparameters: { lr: 0.001, beta1: 0.9, beta2: 0.99, weight_decay: 0 },
    memory: ["m", "c"],
    decoupled: true,
    formula:
      "θ ← θ − lr·weight_decay·θ,  c = β1·m + (1 − β1)·g,  θ ← θ − lr·sign(c),  " +
      "m ← β2·m + (1 − β2)·g",
    update(theta, g, { m, c }, { lr, beta1, beta2 }) {
      for (let i = 0; i < theta.length; i++) {
        c[i] = beta1 * m[i] + (1 - beta1) * g[i];
        theta[i] -= lr * Math.sign(c[i]);
        m[i] = beta2 * m[i] + (1 - beta2) * g[i];
      }
    },
    inside: (g, { m, c }, { lr }) => ({
      g,
      m,
      c,
      "sign(c)": Math.sign(c),
      step: -lr * Math.sign(c),
    }),
  },
};

// Take one step with a rule: its weight decay first, as PyTorch has it, then its update.
export function step(rule, theta, g, memory, hyperparameters, t) {
  const { lr, weight_decay: decay } = hyperparameters;
  if (decay && rule.decoupled) {
    for (let i = 0; i < theta.length; i++) theta[i] *= 1 - lr * decay;
  } else if (decay) {
    for (let i = 0; i < theta.length; i++) g[i] += decay * theta[i];
  }
  rule.update(theta, g, memory, hyperparameters, t);
}
