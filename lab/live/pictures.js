// The pictures: losses, what the nets have learned, the loss against the rate, the weights.

import { bandOf, quartiles } from "./statistics.js";
import { RATES } from "./setting.js";
import { classOf } from "./training.js";

const TOP = 0.2; // of the tutorial's figure
const GRID = 44; // points a side of a plane

// ---------------------------------------------------------------- losses

// The loss of each mini-batch against steps: of several seeds the median, and the quartiles.
export function drawLosses(chart, runs, colors, words, { steps, at }) {
  const curves = runs.map(({ trainings }) => lossBand(trainings));
  const ends = curves.flatMap((band, k) => endOf(band[1], runs[k].trainings[0].stepsPerEpoch));
  chart.axes(
    { from: 0, to: Math.max(2, steps), label: words.steps },
    { ...limitsOfLosses(ends), label: words.loss },
  );
  const numbers = Float64Array.from({ length: steps }, (_, k) => k + 1);
  chart.inside(() => {
    if (at) {
      const x = chart.placeX(at);
      chart.stroke(
        chart.colors.soft,
        [
          [x, chart.top],
          [x, chart.bottom],
        ],
        1,
      );
    }
    runs.forEach(({ optimizer, trainings }, k) => {
      const [low, median, high] = curves[k];
      const color = colors[optimizer.label];
      if (trainings.length > 1) chart.band(numbers, low, high, color);
      chart.line(numbers, median, color, lineWidth(k, runs.length));
    });
  });
}

function lossBand(trainings) {
  if (trainings.length === 1) return [null, trainings[0].history, null];
  return bandOf(
    trainings.map(({ history }) => history),
    Math.max(...trainings.map(({ t }) => t)),
  );
}

// The median of the losses of the last epoch, if the curve comes to its end at all.
function endOf(losses, stepsPerEpoch) {
  const last = losses.slice(-stepsPerEpoch);
  return last.length && Number.isFinite(last.at(-1)) ? [quartiles(last)[1]] : [];
}

// From 0 to the figure's top, or as far as the highest end needs. Where the lowest end would lie
// flat on the axis, the axis is logarithmic.
function limitsOfLosses(ends) {
  const to = Math.max(TOP, 1.2 * Math.max(0, ...ends));
  const lowest = Math.min(to, ...ends.filter((end) => end > 0));
  if (lowest >= to / 50) return { from: 0, to };
  return { from: lowest / 3, to: 10 * to, isLog: true };
}

// Curves may lie on each other: each later one is thinner.
const lineWidth = (k, count) => 1.1 + (1.1 * (count - 1 - k)) / Math.max(1, count - 1);

// ---------------------------------------------------------------- fits

// What the nets have learned: the data, and a curve each.
export function drawCurves(chart, runs, data, colors) {
  const { x, y } = data.train;
  const [from, to] = rangeOf(x[0]);
  chart.axes({ from, to, label: "x" }, { ...padded(rangeOf(y[0])), label: "y" });
  const grid = Float64Array.from({ length: 200 }, (_, k) => from + ((to - from) * k) / 199);
  const inputs = { x: [grid], n: grid.length };
  chart.inside(() => {
    chart.dots(x[0], y[0], chart.colors.faint, 1.4);
    for (const { optimizer, trainings } of runs) {
      const curves = trainings.map((training) => training.forwardOver(inputs).outputs[0].slice());
      const [low, median, high] =
        curves.length > 1 ? bandOf(curves, grid.length) : [null, curves[0]];
      if (low) chart.band(grid, low, high, colors[optimizer.label]);
      chart.line(grid, median, colors[optimizer.label], 2.2);
    }
  });
}

// Which class the nets give to each point of the plane, and the data: a panel for each optimizer.
// Of several seeds it is the class of the highest mean probability.
export function drawRegions(charts, runs, data, palette) {
  const [[from, to], [low, high]] = data.train.x.map(rangeOf);
  const inputs = planeOf([from, to], [low, high]);
  const groups = groupsOf(data.train, palette.length);
  charts.forEach((chart, k) => {
    chart.axes({ from, to }, { from: low, to: high });
    const classes = classesOf(runs[k], inputs);
    chart.inside(() => {
      drawPlane(chart, classes, palette);
      groups.forEach(([x1, x2], c) => chart.dots(x1, x2, palette[c], 1.3));
    });
  });
}

// The points of each class: their first and their second inputs.
function groupsOf({ x, y }, n) {
  return Array.from({ length: n }, (_, c) =>
    x.map((column) => column.filter((_, s) => y[0][s] === c)),
  );
}

// The points of a grid over the plane, row by row from below.
function planeOf([left, right], [low, high]) {
  const n = GRID * GRID;
  const place = (k, from, to) => from + ((to - from) * (k + 0.5)) / GRID;
  const across = Float64Array.from({ length: n }, (_, k) => place(k % GRID, left, right));
  const up = Float64Array.from({ length: n }, (_, k) => place(Math.floor(k / GRID), low, high));
  return { x: [across, up], n };
}

// The classes of all points, computed once for as many steps as the trainings have taken.
function classesOf(run, inputs) {
  const steps = run.trainings.reduce((sum, { t }) => sum + t, 0);
  if (run.classes?.steps !== steps) {
    const sums = run.trainings[0].forwardOver(inputs).outputs.map(() => new Float64Array(inputs.n));
    for (const training of run.trainings) {
      if (!training.diverged)
        addProbabilities(sums, training.forwardOver(inputs).outputs, inputs.n);
    }
    const ofEach = new Uint8Array(inputs.n);
    for (let s = 0; s < inputs.n; s++) ofEach[s] = classOf(sums, s);
    run.classes = { steps, ofEach };
  }
  return run.classes.ofEach;
}

function addProbabilities(sums, outputs, n) {
  for (let s = 0; s < n; s++) {
    const largest = outputs[classOf(outputs, s)][s];
    let total = 0;
    for (let j = 0; j < outputs.length; j++) total += Math.exp(outputs[j][s] - largest);
    for (let j = 0; j < outputs.length; j++)
      sums[j][s] += Math.exp(outputs[j][s] - largest) / total;
  }
}

function drawPlane(chart, classes, palette) {
  const column = (k) => Math.round(chart.left + (k * (chart.right - chart.left)) / GRID);
  const row = (k) => Math.round(chart.bottom - (k * (chart.bottom - chart.top)) / GRID);
  chart.pen.globalAlpha = 0.3;
  for (let k = 0; k < GRID; k++) {
    for (let from = 0, to; from < GRID; from = to) {
      const name = classes[k * GRID + from];
      for (to = from + 1; to < GRID && classes[k * GRID + to] === name;) to++;
      chart.pen.fillStyle = palette[name];
      chart.pen.fillRect(column(from), row(k + 1), column(to) - column(from), row(k) - row(k + 1));
    }
  }
  chart.pen.globalAlpha = 1;
}

function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

const padded = ([from, to]) => ({ from: from - 0.05 * (to - from), to: to + 0.05 * (to - from) });

// ---------------------------------------------------------------- the loss against the rate

// The loss after training at each rate, and a ring at the one that is set.
export function drawRates(chart, sweeps, runs, colors, words) {
  const losses = sweeps.flatMap(({ sweep }) => sweep.losses).filter(Number.isFinite);
  const ends = runs.map(endLoss).filter(Number.isFinite);
  const lowest = Math.min(...losses, ...ends, 1);
  const highest = Math.min(50 * lowest, Math.max(...losses, ...ends, 2 * lowest));
  chart.axes(
    { from: RATES[0], to: RATES.at(-1), label: words.rate, isLog: true },
    { from: lowest / 1.3, to: highest * 1.3, label: words.lossAfter, isLog: true },
  );
  sweeps.forEach(({ label, sweep }, k) => {
    chart.inside(() => {
      const color = colors[label];
      for (const [from, to] of finiteParts(sweep.losses)) {
        chart.line(
          RATES.slice(from, to),
          sweep.losses.slice(from, to),
          color,
          lineWidth(k, sweeps.length) + 0.5,
        );
      }
    });
  });
  for (const run of runs) {
    const isInside = run.optimizer.lr >= RATES[0] && run.optimizer.lr <= RATES.at(-1);
    if (isInside && run.trainings[0].isDone)
      chart.mark(run.optimizer.lr, endLoss(run), colors[run.optimizer.label]);
  }
}

const endLoss = ({ trainings: [first] }) => (first.isDone ? first.end.loss : NaN);

function finiteParts(values) {
  const parts = [];
  for (let k = 0; k < values.length; k++) {
    if (!Number.isFinite(values[k])) continue;
    if (parts.at(-1)?.[1] === k) parts.at(-1)[1]++;
    else parts.push([k, k + 1]);
  }
  return parts;
}

// ---------------------------------------------------------------- all weights

const GAP = 3;

// How far each weight has moved, as small pictures, layer by layer, those of the biases apart: up
// is more than at the start. All of a layer have one scale. Returns where each picture is.
export function drawWeights(canvas, recorder, color, at) {
  const boxes = boxesOf(recorder, canvas.clientWidth);
  const pen = penOf(canvas, Math.max(...boxes.map(({ y, h }) => y + h)) + 2);
  const style = getComputedStyle(canvas);
  const [ink, grid] = [style.getPropertyValue("--ink"), style.getPropertyValue("--grid")];
  const { paths, every, weight, training } = recorder;
  const now = Math.min(paths.length - 1, Math.round(at / every));
  const largest = largestMoves(recorder);
  boxes.forEach(({ x, y, w, h }, k) => {
    const placeX = (step) => x + 2 + ((w - 4) * step) / training.steps;
    const placeY = (path) => y + h / 2 - ((path[k] - paths[0][k]) / largest(k)) * (h / 2 - 2);
    pen.lineWidth = k === weight ? 2 : 1;
    pen.strokeStyle = k === weight ? ink : grid;
    pen.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    pen.strokeStyle = color;
    pen.lineWidth = 1.3;
    pen.beginPath();
    paths.forEach((path, p) => pen.lineTo(placeX(p * every), placeY(path)));
    pen.stroke();
    pen.fillStyle = ink;
    pen.beginPath();
    pen.arc(placeX(now * every), placeY(paths[now]), 1.7, 0, 7);
    pen.fill();
  });
  return boxes;
}

function penOf(canvas, height) {
  const sharpness = globalThis.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(canvas.clientWidth * sharpness);
  canvas.height = Math.round(height * sharpness);
  const pen = canvas.getContext("2d");
  pen.setTransform(sharpness, 0, 0, sharpness, 0, 0);
  return pen;
}

// The weights of a layer are a block of pictures, and its biases another.
const blockOf = ({ layer, input }) => 2 * layer + (input === null);

// A function that tells for each weight how far any of its block has moved.
function largestMoves({ places, paths }) {
  const largest = {};
  for (const path of paths) {
    places.forEach((place, k) => {
      const move = Math.abs(path[k] - paths[0][k]);
      if (Number.isFinite(move))
        largest[blockOf(place)] = Math.max(largest[blockOf(place)] ?? 1e-12, move);
    });
  }
  return (k) => largest[blockOf(places[k])];
}

// Where the small pictures lie: rows of at most 24, and a gap between blocks.
function boxesOf({ places, training }, width) {
  const perRow = Math.min(24, Math.max(...training.net.sizes), Math.floor(width / 23));
  const w = Math.floor((width + GAP) / perRow) - GAP;
  const h = Math.max(22, Math.min(40, Math.round(1.3 * w)));
  const boxes = [];
  let [y, column] = [0, 0];
  places.forEach((place, k) => {
    const isNew = k > 0 && blockOf(place) !== blockOf(places[k - 1]);
    if (isNew || column === perRow) {
      y += h + (isNew ? 4 * GAP : GAP);
      column = 0;
    }
    boxes.push({ x: column * (w + GAP), y, w, h });
    column++;
  });
  return boxes;
}
