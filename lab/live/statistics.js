// What many trainings say together.

// The lower quartile, median and upper quartile. Values that are not finite count as infinite.
export function quartiles(values) {
  const sorted = Float64Array.from(values, (x) => (Number.isFinite(x) ? x : Infinity)).sort();
  return [0.25, 0.5, 0.75].map((share) => quantile(sorted, share));
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return high === low ? low : low + (place - Math.floor(place)) * (high - low);
}

// The quartiles of many curves at each place, as three curves. What ended early is infinite.
export function bandOf(curves, length) {
  const band = [0, 1, 2].map(() => new Float64Array(length));
  const sorted = new Float64Array(curves.length);
  for (let k = 0; k < length; k++) {
    for (let c = 0; c < curves.length; c++)
      insert(sorted, c, k < curves[c].length ? curves[c][k] : NaN);
    for (let q = 0; q < 3; q++) band[q][k] = quantile(sorted, (q + 1) / 4);
  }
  return band;
}

// Insert a value where it belongs among the first `count`, which are sorted.
function insert(sorted, count, value) {
  const finite = Number.isFinite(value) ? value : Infinity;
  let place = count;
  for (; place > 0 && sorted[place - 1] > finite; place--) sorted[place] = sorted[place - 1];
  sorted[place] = finite;
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
