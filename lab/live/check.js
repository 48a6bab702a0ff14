// The page checks itself: it trains what PyTorch has trained, and compares each loss.

import { dataOf, decode } from "./data.js";
import { Training } from "./training.js";

export const DIGITS = 5; // to which losses have to agree during the first epoch

// Train as one of the checks says. Return up to which step all losses agree, how many there are,
// and where they first differ. After the first epoch they may: rounding grows, as a training is
// chaotic, and two versions of PyTorch would differ no less.
export function check(embedded, problem, { optimizer, batchSize, epochs, seed, losses }) {
  const number = embedded.seeds.findIndex((one) => one.seed === seed);
  const data = dataOf(embedded, number, embedded.start.noise);
  const training = new Training(problem, data, optimizer, { batchSize, epochs }).advance();
  const theirs = decode(losses, Float32Array);
  let agrees = 0;
  while (agrees < theirs.length && isSame(training.history[agrees], theirs[agrees])) agrees++;
  const needed = Math.min(training.stepsPerEpoch, theirs.length);
  const [here, there] = [training.history[agrees], theirs[agrees]];
  return { passed: agrees >= needed, agrees, steps: theirs.length, here, there };
}

const isSame = (one, other) => Math.abs(one - other) <= 10 ** -DIGITS * Math.abs(other);
