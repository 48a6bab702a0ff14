// The inside of a step, shown: its terms as bars, and its formula.

import { element, format } from "./controls.js";

export function formulaOf(rule) {
  return rule.formula.split(/,\s{2}/).map((part) => element("span", { textContent: part }));
}

// All terms of the weight that one points at, at step t.
export function chosenWeight(recorder, t, words) {
  const step = recorder.steps[t - 1];
  if (!step) return [note(recorder.training.isDone ? words.noStep : "…")];
  const [{ before, after, terms }] = step;
  return [
    element("p", { textContent: words.place(recorder.places[recorder.weight]) }),
    bars(recorder, t, 0, Object.keys(terms), words),
    note(words.change(format(before, 5), format(after, 5))),
  ];
}

// Gradient and step of the others that lead to the same unit.
export function othersOfUnit(recorder, t, words) {
  const others = recorder.watched.slice(1);
  if (!recorder.steps[t - 1] || !others.length) return [];
  return [
    element("h3", { textContent: words.sameUnit }),
    ...others.map((w, k) => {
      const place = note(words.place(recorder.places[w]));
      return element("div", {}, place, bars(recorder, t, k + 1, ["g", "step"], words));
    }),
  ];
}

// A bar for each term of the k-th watched weight: as long as its share of the largest value that
// the term has in the whole training.
function bars({ steps }, t, k, names, words) {
  const rows = names.flatMap((name) => {
    const value = steps[t - 1][k].terms[name];
    const largest = steps.reduce((most, step) => Math.max(most, Math.abs(step[k].terms[name])), 0);
    const share = (50 * value) / (largest || 1);
    const bar = element("i");
    Object.assign(bar.style, { left: `${50 + Math.min(0, share)}%`, width: `${Math.abs(share)}%` });
    return [
      element("span", { className: "name", textContent: name === "step" ? words.step : name }),
      element("span", { className: "bar" }, bar),
      element("span", { className: "value", textContent: format(value) }),
    ];
  });
  return element("div", { className: k ? "terms small" : "terms" }, ...rows);
}

const note = (text) => element("p", { className: "note", textContent: text });
