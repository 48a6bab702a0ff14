// What one moves: a card for each optimizer, and what holds for all of them.

import { RULES } from "./optimizers.js";
import { VALUES, another } from "./setting.js";

const BEHIND_MORE = ["eps", "weight_decay"];

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A number as it is read: three digits, and powers of ten where they are shorter.
export function format(value, digits = 3) {
  if (!Number.isFinite(value)) return "∞";
  const text = String(Number(value.toPrecision(digits)));
  return text
    .replace(/e([+-])(\d+)/, (_, sign, power) => `·10${sign === "-" ? "⁻" : ""}${raised(power)}`)
    .replace(/^-/, "−");
}

const raised = (digits) => Array.from(digits, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");

// A slider through a list of values. A value that is not in the list stays until it is moved.
export function slider({ label, name, values, value, text = format, isWide = false, onInput }) {
  const nearest = (wanted) => {
    const distance = (k) => Math.abs(values[k] - wanted);
    return values.reduce((best, _, k) => (distance(k) < distance(best) ? k : best), 0);
  };
  const shown = element("output", { textContent: text(value) });
  const range = element("input", { type: "range", min: 0, max: values.length - 1, step: 1, name });
  range.value = nearest(value);
  range.setAttribute("aria-valuetext", text(value));
  range.addEventListener("input", () => {
    const chosen = values[range.value];
    shown.textContent = text(chosen);
    range.setAttribute("aria-valuetext", text(chosen));
    onInput(chosen);
  });
  const title = element("span", { textContent: label });
  return element("label", { className: isWide ? "slider wide" : "slider" }, title, shown, range);
}

// A card: on or off, away with it, and a slider for each hyperparameter.
export function optimizerCard(
  optimizer,
  { words, color, isOpen, isLast, onChange, onRemove, onOpen },
) {
  const { label, rule } = optimizer;
  const change = (name, value) =>
    onChange({ ...optimizer, ...Object.assign(optimizer, { [name]: value }) });
  const toggle = element("input", { type: "checkbox", checked: optimizer.isOn });
  toggle.setAttribute("aria-label", words.isOn(label));
  toggle.addEventListener("change", () => change("isOn", toggle.checked));
  const remove = element("button", {
    type: "button",
    className: "remove",
    textContent: "×",
    disabled: isLast,
  });
  remove.setAttribute("aria-label", words.remove(label));
  remove.addEventListener("click", onRemove);
  const head = element(
    "header",
    {},
    element("label", {}, toggle, element("b", { textContent: label })),
    remove,
  );
  const card = element("fieldset", { className: "card" }, head);
  card.style.setProperty("--own", color);
  card.setAttribute("aria-label", label);
  card.classList.toggle("off", !optimizer.isOn);

  const sliders = Object.keys(RULES[rule].hyperparameters).map((name) => [
    name,
    slider({
      label: words[name],
      name: `${label} ${name}`,
      values: VALUES[name],
      value: optimizer[name],
      onInput: (value) => change(name, value),
    }),
  ]);
  const hidden = element(
    "details",
    { open: isOpen },
    element("summary", { textContent: words.more }),
  );
  hidden.addEventListener("toggle", () => onOpen(hidden.open));
  for (const [name, made] of sliders) (BEHIND_MORE.includes(name) ? hidden : card).append(made);
  card.append(hidden);
  return card;
}

// The list of rules, from which one is added.
export function adder(words, optimizers, onAdd) {
  const select = element("select", { name: "add" });
  select.setAttribute("aria-label", words.addLabel);
  select.append(element("option", { value: "", textContent: words.add }));
  for (const rule of Object.keys(RULES))
    select.append(element("option", { value: rule, textContent: rule }));
  select.addEventListener("change", () => {
    if (select.value) onAdd(another(select.value, optimizers));
  });
  return select;
}

// What holds for all: batch size, epochs, noise, seed, and how many seeds.
export function sharedControls(setting, embedded, words, onChange) {
  const { samples, epochs, seeds, noise } = embedded;
  const sizes = [];
  for (let size = 1; size < samples; size *= 2) sizes.push(size);
  const whole = (value) => (value >= samples ? words.all(samples) : String(value));
  const own = (name, values, text = String) =>
    slider({
      label: words[name],
      name,
      values,
      value: setting[name],
      text,
      onInput: (value) => onChange({ [name]: value }),
    });
  const many = element("input", { type: "checkbox", name: "seeds", checked: setting.seeds > 1 });
  many.addEventListener("change", () => onChange({ seeds: many.checked ? seeds.length : 1 }));
  return [
    own("batchSize", [...sizes, samples], whole),
    own(
      "epochs",
      Array.from({ length: epochs }, (_, k) => k + 1),
    ),
    ...(noise === null
      ? []
      : [
          own(
            "noise",
            Array.from({ length: 51 }, (_, k) => k / 100),
            format,
          ),
        ]),
    ...(seeds.length > 1
      ? [
          own(
            "seed",
            seeds.map(({ seed }) => seed),
          ),
        ]
      : []),
    ...(seeds.length > 1
      ? [element("label", { className: "switch" }, many, words.seeds(seeds.length))]
      : []),
  ];
}
