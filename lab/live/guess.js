// Guess first: which optimizer ends lowest? The count is kept here, and nowhere else.

import { RATES } from "./setting.js";

const CLOSE = 1.05; // losses nearer than this are as good as equal: either order is right

export class Guess {
  constructor() {
    Object.assign(this, { right: 0, asked: 0 });
    this.ask();
  }

  // Begin a question: nothing is chosen, the curves are hidden.
  ask() {
    Object.assign(this, { phase: "ask", chosen: [], pairs: null });
  }

  // Put an optimizer in the next place, or take it out again.
  choose(label) {
    const place = this.chosen.indexOf(label);
    if (place < 0) this.chosen.push(label);
    else this.chosen.splice(place, 1);
  }

  placeOf(label) {
    return this.chosen.indexOf(label) + 1;
  }

  // Judge the order by the losses after training, by label.
  judge(losses) {
    const wrong = countPairs(this.chosen, (one, other) => losses[one] > CLOSE * losses[other]);
    const all = countPairs(this.chosen, () => true);
    this.pairs = { right: all - wrong, all };
    this.phase = "told";
    this.asked++;
    if (!wrong) this.right++;
  }
}

function countPairs(labels, isCounted) {
  let count = 0;
  labels.forEach((one, k) => {
    for (const other of labels.slice(k + 1)) if (isCounted(one, other)) count++;
  });
  return count;
}

// The same optimizers, each with a rate by chance, of those from 0.0004 to 1.
export function withOtherRates(optimizers, chance = Math.random) {
  return optimizers.map((one) => {
    const lr = RATES[3 + Math.floor(17 * chance())];
    return { ...one, lr: Number(lr.toPrecision(1)) };
  });
}
