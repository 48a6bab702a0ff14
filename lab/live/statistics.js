// What many trainings say together.

// The lower quartile, median and upper quartile. Values that are not finite count as infinite.
export function quartiles(values) {
  const sorted = Float64Array.from(values, (x) => (Number.isFinite(x) ? x : Infinity)).sort();
  return [0.25, 0.5, 0.75].map((share) => {
    const place = share * (sorted.length - 1);
    const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
    return high === low ? low : low + (place - Math.floor(place)) * (high - low);
  });
}

// The quartiles of many curves at each place, as three curves. What ended early is infinite.
export function bandOf(curves, length) {
  const band = [0, 1, 2].map(() => new Float64Array(length));
  const values = new Float64Array(curves.length);
  for (let k = 0; k < length; k++) {
    for (let c = 0; c < curves.length; c++) values[c] = k < curves[c].length ? curves[c][k] : NaN;
    quartiles(values).forEach((value, q) => (band[q][k] = value));
  }
  return band;
}

// The first step at which the mean of the last `window` losses is below the target, from 1.
export function stepsToTarget(losses, target, window) {
  let sum = 0;
  for (let t = 0; t < losses.length; t++) {
    sum += losses[t] - (t >= window ? losses[t - window] : 0);
    if (t + 1 >= window && sum / window < target) return t + 1;
  }
  return Infinity;
}
