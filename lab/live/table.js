// The numbers of the table that compare_optimizers.py prints.

import { element } from "./controls.js";
import { quartiles, stepsToTarget } from "./statistics.js";

// The head and the body of the table: a row for each optimizer.
export function tableOf(runs, { words, colors, hasClasses, target }) {
  const { optimizer, loss, heldOut, accuracy, target: steps } = words.columns;
  const titles = [optimizer, loss, heldOut, ...(hasClasses ? [accuracy] : []), steps(target)];
  const heads = titles.map((title) => element("th", { textContent: title, scope: "col" }));
  const rows = runs.map((run) => {
    const cells = [run.optimizer.label, ...numbersOf(run, { words, hasClasses, target })];
    const row = element("tr", {}, ...cells.map((cell) => element("td", {}, ...[cell].flat())));
    row.firstChild.style.setProperty("--own", colors[run.optimizer.label]);
    return row;
  });
  return [element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)];
}

function numbersOf({ trainings }, { words, hasClasses, target }) {
  if (!trainings.every(({ isDone }) => isDone)) return Array(hasClasses ? 4 : 3).fill("…");
  const loss = (x) => x.toFixed(5);
  const share = (x) => `${(100 * x).toFixed(1)}%`;
  return [
    cellOf(
      trainings.map(({ end }) => end.loss),
      loss,
      "–",
    ),
    cellOf(
      trainings.map(({ end }) => end.heldOutLoss),
      loss,
      "–",
    ),
    ...(hasClasses
      ? [
          cellOf(
            trainings.map(({ accuracy }) => accuracy),
            share,
            "–",
          ),
        ]
      : []),
    stepsCell(trainings, words, target),
  ];
}

// The median, and under it the quartiles, if they differ. Infinity has a word of its own.
function cellOf(values, text, infinite) {
  const [low, middle, high] = quartiles(values).map((x) => (x < Infinity ? text(x) : infinite));
  if (low === high) return middle;
  return [middle, element("small", { textContent: `${low} – ${high}` })];
}

// When the target was reached, or when the first training diverged.
function stepsCell(trainings, words, target) {
  const broken = trainings.filter(({ diverged }) => diverged).map(({ t }) => t);
  if (broken.length) return words.atStep(Math.min(...broken));
  const steps = trainings.map((one) => stepsToTarget(one.history, target, one.stepsPerEpoch));
  return cellOf(steps, (x) => String(Math.round(x)), words.never);
}
