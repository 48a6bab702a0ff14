// The setting: what is trained. And how it stands in the page's address, so that it can be sent.
//
//     #batch=8&epochs=20&seeds=10&o=SGD(lr=0.1)&o=big=Adam(lr=0.3,beta1=0.9)&o=-RMSprop(lr=0.01)
//
// An optimizer is LABEL=RULE(hyperparameter=value,...), as on the command line; with a minus before
// it, it is there and switched off. A hyperparameter that is not said is PyTorch's own; all else, as the
// page starts.

import { RULES } from "./optimizers.js";

// A few of many numbers, at equal ratios: from 10 to the power of `low` up, `n` a decade.
function decades(low, high, n) {
  const count = Math.round((high - low) * n) + 1;
  return Array.from({ length: count }, (_, k) => Number((10 ** (low + k / n)).toPrecision(3)));
}

const SHARES = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.98];
const NEAR_ONE = [0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];

// What a slider goes through.
export const VALUES = {
  lr: decades(-4, 1, 20),
  momentum: [...SHARES, 0.99, 0.995, 0.999],
  alpha: [...SHARES, ...NEAR_ONE],
  beta1: [...SHARES, ...NEAR_ONE],
  beta2: [...SHARES, ...NEAR_ONE],
  eps: decades(-12, 0, 1),
  weight_decay: [0, ...decades(-5, 0, 4)],
};

// The rates for which the loss after training is drawn.
export const RATES = Array.from({ length: 25 }, (_, k) => 10 ** (-4 + (5 * k) / 24));

// What a hyperparameter may be: the ranges of PyTorch.
const isAllowed = (name, value) =>
  Number.isFinite(value) &&
  (name === "lr" ? value > 0 : value >= 0) &&
  (value < 1 || ["lr", "eps", "weight_decay"].includes(name));

export function startOf(embedded) {
  const { optimizers, ...others } = embedded.start;
  return {
    ...others,
    optimizers: optimizers.map((one) => ({ ...one, isOn: true })),
    guess: false,
    inside: false,
    of: optimizers[0].label, // whose steps one looks into
    weight: 0,
    step: 1,
  };
}

// Names in the address of what is a whole number or a number, and their ranges.
const limitsOf = (embedded) => ({
  batchSize: ["batch", 1, embedded.samples],
  epochs: ["epochs", 1, embedded.epochs],
  noise: ["noise", 0, embedded.noise === null ? 0 : 10],
  seed: ["seed", embedded.seeds[0].seed, embedded.seeds.at(-1).seed],
  seeds: ["seeds", 1, embedded.seeds.length],
  weight: ["weight", 0, Infinity],
  step: ["step", 1, Infinity],
});

// The address of a setting: what differs from the start.
export function toAddress(setting, embedded) {
  const start = startOf(embedded);
  const parts = [];
  for (const [key, [name]] of Object.entries(limitsOf(embedded))) {
    if (setting[key] !== start[key]) parts.push(`${name}=${setting[key]}`);
  }
  for (const key of ["guess", "inside"]) if (setting[key]) parts.push(key);
  if (setting.of !== start.of) parts.push(`of=${encodeURIComponent(setting.of)}`);
  const texts = setting.optimizers.map(optimizerText);
  if (texts.join() !== start.optimizers.map(optimizerText).join()) {
    parts.push(...texts.map((text) => `o=${text}`));
  }
  return parts.join("&");
}

function optimizerText({ label, rule, isOn, ...hyperparameters }) {
  const isSaid = ([name, value]) => name === "lr" || value !== RULES[rule].hyperparameters[name];
  const values = Object.entries(hyperparameters)
    .filter(isSaid)
    .map((pair) => pair.join("="));
  const name = label === rule ? rule : `${encoded(label)}=${rule}`;
  return `${isOn ? "" : "-"}${name}(${values.join(",")})`;
}

// The setting of an address. What cannot be read, or is out of range, is as at the start.
export function fromAddress(address, embedded) {
  const setting = startOf(embedded);
  const optimizers = [];
  for (const part of address.replace(/^#/, "").split("&")) {
    const [, name, value] = /^([a-z]+)=?(.*)$/.exec(part) ?? [];
    if (name === "o") optimizers.push(optimizerOf(value));
    if (name === "guess" || name === "inside") setting[name] = true;
    if (name === "of") setting.of = decoded(value);
    for (const [key, [short, low, high]] of Object.entries(limitsOf(embedded))) {
      const number = Number(value);
      if (name !== short || value === "" || !(number >= low && number <= high)) continue;
      if (key === "noise" || Number.isInteger(number)) setting[key] = number;
    }
  }
  const readable = optimizers.filter(
    (one, k) => one && optimizers.findIndex((other) => other?.label === one.label) === k,
  );
  if (readable.length) setting.optimizers = readable;
  if (!setting.optimizers.some(({ label }) => label === setting.of)) {
    setting.of = setting.optimizers[0].label;
  }
  return setting;
}

function optimizerOf(text) {
  const [, off, label, rule, inside] = /^(-?)(?:([^=(]*)=)?(\w+)\(([^()]*)\)$/.exec(text) ?? [];
  if (!Object.hasOwn(RULES, rule ?? "")) return null;
  const hyperparameters = { ...RULES[rule].hyperparameters };
  for (const pair of inside.split(",").filter(Boolean)) {
    const [name, value] = pair.split("=");
    if (!(name in hyperparameters) || !value || !isAllowed(name, Number(value))) return null;
    hyperparameters[name] = Number(value);
  }
  return { label: decoded(label ?? rule), rule, ...hyperparameters, isOn: !off };
}

// A label without any sign that means something here.
function encoded(label) {
  const code = (sign) => `%${sign.charCodeAt(0).toString(16)}`;
  return encodeURIComponent(label).replace(/[()-]/g, code);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % that encodes nothing
  }
}

// An optimizer to be added: with PyTorch's own hyperparameters, and a name that is free.
export function another(rule, optimizers) {
  let label = rule;
  for (let k = 2; optimizers.some((one) => one.label === label); k++) label = `${rule} ${k}`;
  return { label, rule, ...RULES[rule].hyperparameters, isOn: true };
}
