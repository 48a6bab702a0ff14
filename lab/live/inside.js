// The inside of a step: what a rule remembers of a weight, and what it makes of its gradient.

const SAMPLES = 48; // of each weight's path, in the small pictures

// A training whose steps are written down: for one weight and those that lead to the same unit,
// everything; for all weights, their paths.
export class Recorder {
  constructor(training, weight, key) {
    Object.assign(this, { training, key });
    this.places = placesOf(training.net.sizes);
    this.weight = Math.min(weight, this.places.length - 1);
    this.watched = unitOf(this.places, this.weight);
    this.every = Math.max(1, Math.floor(training.steps / SAMPLES));
    this.paths = [Float32Array.from(training.theta)];
    this.steps = []; // of each step, for each watched weight: { before, after, terms }
  }

  // Go on for so many steps; false if it is at its end.
  advance(steps) {
    const { training } = this;
    for (; steps > 0 && !training.isDone; steps--) {
      const before = this.watched.map((w) => training.theta[w]);
      training.advance(1);
      if (!training.diverged) this.steps.push(this.watched.map((w, k) => this.look(w, before[k])));
      if (training.t % this.every === 0) this.paths.push(Float32Array.from(training.theta));
    }
    return !training.isDone;
  }

  look(w, before) {
    const { rule, memory, g, theta, optimizer, t } = this.training;
    const own = {};
    for (const name of rule.memory) own[name] = memory[name][w];
    return { before, after: theta[w], terms: termsOf(rule, g[w], own, optimizer, t, before) };
  }
}

// The terms of a step, by name: the last is the step itself.
function termsOf(rule, g, memory, optimizer, t, theta) {
  const { step, ...terms } = rule.inside(g, memory, optimizer, t);
  const { lr, weight_decay: decay } = optimizer;
  if (decay && rule.decoupled) {
    return { ...terms, "−lr·weight_decay·θ": -lr * decay * theta, step: step - lr * decay * theta };
  }
  if (!decay) return { ...terms, step };
  const { g: whole, ...others } = terms; // with the decay, which PyTorch adds to the gradient
  return { g: g - decay * theta, "g + weight_decay·θ": whole, ...others, step };
}

// For each weight of a net its layer, and from which input to which unit it leads. A bias has no
// input.
export function placesOf(sizes) {
  const places = [];
  for (let layer = 1; layer < sizes.length; layer++) {
    for (let unit = 0; unit < sizes[layer]; unit++) {
      for (let input = 0; input < sizes[layer - 1]; input++) places.push({ layer, unit, input });
    }
    for (let unit = 0; unit < sizes[layer]; unit++) places.push({ layer, unit, input: null });
  }
  return places;
}

// The numbers of the weights that lead to the same unit, the bias last; this one first.
export function unitOf(places, weight) {
  const { layer, unit } = places[weight];
  const all = places.map((_, w) => w);
  const others = all.filter(
    (w) => w !== weight && places[w].layer === layer && places[w].unit === unit,
  );
  return [weight, ...others].slice(0, 9);
}
