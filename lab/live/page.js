// The page itself: what is set goes to the lab, and what the lab has trained is drawn.

import { chosenWeight, formulaOf, othersOfUnit } from "./bars.js";
import { Chart } from "./chart.js";
import { DIGITS, check } from "./check.js";
import { adder, element, format, optimizerCard, sharedControls, slider } from "./controls.js";
import { Guess, withOtherRates } from "./guess.js";
import { placesOf } from "./inside.js";
import { Lab } from "./lab.js";
import { drawCurves, drawLosses, drawRates, drawRegions, drawWeights } from "./pictures.js";
import { fromAddress, startOf, toAddress } from "./setting.js";
import { quartiles } from "./statistics.js";
import { tableOf } from "./table.js";
import { WORDS } from "./words.js";

const FRAME = 14; // milliseconds of a frame in which the lab may work; what is left is for drawing
const PATIENCE = 250; // milliseconds for which one waits for curves to be complete; then they grow
const WATCH = 4; // seconds that a training takes that one watches

const find = (id) => document.getElementById(id);
const isDark = matchMedia("(prefers-color-scheme: dark)");
const wantsNoMotion = matchMedia("(prefers-reduced-motion: reduce)");

class LivePage {
  constructor(embedded) {
    this.embedded = embedded;
    this.lab = new Lab(embedded);
    this.hasClasses = embedded.loss === "cross_entropy";
    this.words = WORDS[navigator.language.startsWith("zh") ? "zh" : "en"];
    this.open = new Set(); // the cards of which all is shown
    this.charts = { losses: new Chart(find("loss-chart")), rates: new Chart(find("rate-chart")) };
    this.guess = null;
    this.boxes = [];
    this.listen();
    this.restore();
    this.checkAgainstTorch();
  }

  listen() {
    find("reset").addEventListener("click", () => this.become(startOf(this.embedded)));
    find("language").addEventListener("click", () => {
      this.words = this.words === WORDS.en ? WORDS.zh : WORDS.en;
      this.build();
      this.showChecks();
    });
    find("guess-button").addEventListener("click", () => {
      this.become({ ...this.setting, guess: !this.setting.guess });
    });
    find("inside").addEventListener("toggle", () => {
      if (find("inside").open !== this.setting.inside) this.change({ inside: find("inside").open });
      this.buildInside();
    });
    find("weights").addEventListener("click", ({ offsetX, offsetY }) => {
      const weight = this.boxes.findIndex(
        ({ x, y, w, h }) =>
          offsetX >= x && offsetX < x + w + 3 && offsetY >= y && offsetY < y + h + 3,
      );
      if (weight >= 0) this.change({ weight }, () => this.buildInside());
    });
    addEventListener("keydown", (event) => this.pressed(event));
    addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== toAddress(this.setting, this.embedded)) this.restore();
    });
    addEventListener("resize", () => this.draw());
    isDark.addEventListener("change", () => this.build());
  }

  // The arrow keys go from step to step, where they have nothing else to do.
  pressed(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const isTaken = event.target.closest?.("input, select");
    const isOther = event.altKey || event.ctrlKey || event.metaKey;
    if (!direction || isTaken || isOther || !this.setting.inside) return;
    event.preventDefault();
    const step = this.limitedStep(this.limitedStep(this.setting.step) + direction);
    this.change({ step }, () => this.buildInside());
  }

  get steps() {
    return this.setting.epochs * Math.ceil(this.embedded.samples / this.setting.batchSize);
  }

  limitedStep(step) {
    return Math.min(Math.max(1, step), this.steps);
  }

  // ---------------------------------------------------------------- the setting

  restore() {
    this.become(fromAddress(location.hash, this.embedded));
  }

  // Another setting altogether.
  become(setting) {
    this.setting = setting;
    if (setting.guess) (this.guess ??= new Guess()).ask();
    else this.guess = null;
    find("inside").open = setting.inside;
    this.trainAnew(false);
    this.build();
  }

  // Another value of something, and perhaps something to build anew.
  change(changes, build = () => {}) {
    Object.assign(this.setting, changes);
    if (this.guess?.phase === "told") this.guess.ask();
    this.trainAnew(false);
    this.keepAddress();
    this.buildGuess();
    build();
  }

  trainAnew(isAnew) {
    this.isStale = true; // the lab will take the setting in the next frame
    this.isAnew = isAnew;
    this.wake();
  }

  keepAddress() {
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      history.replaceState(null, "", `#${toAddress(this.setting, this.embedded)}`);
    }, 150);
  }

  // ---------------------------------------------------------------- frames

  wake() {
    if (!this.isAwake) requestAnimationFrame((now) => this.frame(now));
    this.isAwake = true;
  }

  // What is trained is first trained to its end, so that one sees it, and then what is set by now;
  // unless it takes too long.
  frame(now) {
    const { lab } = this;
    this.isAwake = false;
    const isWatching = this.guess?.phase === "watch";
    if (isWatching && !this.isStale) this.watch(now);
    if (this.isStale && (lab.isDone || this.isAnew || now - lab.since > PATIENCE))
      this.takeSetting();
    const wasDone = lab.isDone && !this.isDirty;
    const isMore = lab.work(FRAME);
    if (wasDone) this.drawRest();
    else if (lab.isDone || isWatching || this.isHidden || now - lab.since > PATIENCE) this.draw();
    if (isMore || this.isStale || isWatching) this.wake();
  }

  takeSetting() {
    this.lab.set(this.setting, this.isAnew);
    this.lab.limit = ["ask", "watch"].includes(this.guess?.phase) ? 0 : Infinity;
    Object.assign(this, { isStale: false, isAnew: false, isDirty: true });
  }

  get isHidden() {
    return this.guess?.phase === "ask";
  }

  draw() {
    const { lab, words, setting, isHidden } = this;
    document.body.classList.toggle("is-hidden", isHidden);
    this.isDirty = !lab.isDone;
    if (!isHidden) {
      const at = setting.inside && this.limitedStep(setting.step);
      drawLosses(this.charts.losses, lab.runs, this.colors, words, { steps: lab.steps, at });
      this.drawFits(lab.runs);
      this.showNumbers(lab.runs);
    } else {
      find("table").replaceChildren();
      find("loss-chart").setAttribute("aria-label", words.hidden);
    }
    this.drawRest();
  }

  // What goes on when the curves are complete: the loss at other rates, and the inside of a step.
  drawRest() {
    const { lab, words } = this;
    if (!this.isHidden) drawRates(this.charts.rates, lab.sweepsNow, lab.runs, this.colors, words);
    if (lab.setting.inside) this.showInside();
  }

  drawFits(runs) {
    if (!runs.length || (this.hasClasses && runs.length !== this.fitCharts.length)) return;
    const data = runs[0].trainings[0];
    if (this.hasClasses) drawRegions(this.fitCharts, runs, data, this.classColors);
    else drawCurves(this.fitCharts[0], runs, data, this.colors);
  }

  // ---------------------------------------------------------------- what is built anew

  build() {
    const { words } = this;
    document.documentElement.lang = words === WORDS.zh ? "zh-CN" : "en";
    document.title = words.title;
    for (const one of document.querySelectorAll("[data-word]"))
      one.textContent = words[one.dataset.word];
    this.shade = (color) => (isDark.matches ? lighter(color) : color);
    this.buildCards();
    find("shared").replaceChildren(
      ...sharedControls(this.setting, this.embedded, words, (changes) => this.change(changes)),
    );
    this.buildLegend();
    this.buildGuess();
    this.buildInside();
    this.keepAddress();
    this.isDirty = true;
    this.wake();
  }

  buildCards() {
    const { optimizers } = this.setting;
    this.classColors = this.embedded.classColors.map(this.shade);
    this.colors = colorsOf(
      optimizers.map(({ label }) => label),
      this.embedded,
      this.shade,
    );
    const cards = optimizers.map((optimizer) =>
      optimizerCard(optimizer, {
        words: this.words,
        color: this.colors[optimizer.label],
        isOpen: this.open.has(optimizer.label),
        isLast: optimizers.length === 1,
        onOpen: (isOpen) => this.open[isOpen ? "add" : "delete"](optimizer.label),
        onChange: () => this.change({}, () => this.buildLegend()),
        onRemove: () => this.setOptimizers(optimizers.filter((one) => one !== optimizer)),
      }),
    );
    const add = adder(this.words, optimizers, (one) => this.setOptimizers([...optimizers, one]));
    find("cards").replaceChildren(...cards, add);
  }

  setOptimizers(optimizers) {
    const isThere = optimizers.some(({ label }) => label === this.setting.of);
    this.become({
      ...this.setting,
      optimizers,
      of: isThere ? this.setting.of : optimizers[0].label,
    });
  }

  buildLegend() {
    const on = this.setting.optimizers.filter(({ isOn }) => isOn);
    const legend = on.map(({ label, lr }) => {
      const item = element("li", { textContent: `${label}, lr=${lr}` });
      item.style.setProperty("--own", this.colors[label]);
      return item;
    });
    find("legend").replaceChildren(...legend);
    for (const card of find("cards").querySelectorAll(".card")) {
      const one = this.setting.optimizers.find(
        ({ label }) => label === card.getAttribute("aria-label"),
      );
      card.classList.toggle("off", !one.isOn);
    }
    this.buildFits(on);
  }

  // One panel for all curves, or a panel of regions for each optimizer.
  buildFits(on) {
    const names = this.hasClasses ? on.map(({ label }) => label) : [this.words.fits];
    if (this.fitNames?.join("\n") === names.join("\n")) return;
    this.fitNames = names;
    const canvases = names.map((name) => {
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", name);
      return canvas;
    });
    this.fitCharts = canvases.map((canvas) => new Chart(canvas));
    find("fit-charts").classList.toggle("many", this.hasClasses);
    find("fit-charts").replaceChildren(
      ...canvases.map((canvas, k) =>
        this.hasClasses
          ? element("figure", {}, element("figcaption", { textContent: names[k] }), canvas)
          : canvas,
      ),
    );
  }

  showNumbers(runs) {
    const { words, colors, hasClasses } = this;
    find("table").replaceChildren(
      ...tableOf(runs, { words, colors, hasClasses, ...this.embedded }),
    );
    runs.forEach(({ optimizer: { label, lr }, trainings }, k) => {
      const end = trainings.some(({ diverged }) => diverged) ? ` (${words.diverged})` : "";
      const item = find("legend").children[k];
      if (item) item.textContent = `${label}, lr=${lr}${end}`;
    });
    const ends = runs
      .filter(({ trainings: [first] }) => first.isDone)
      .map(({ optimizer, trainings: [first] }) =>
        words.endsAt(optimizer.label, format(first.end.loss)),
      );
    find("loss-chart").setAttribute("aria-label", `${words.losses}. ${ends.join(", ")}`);
    find("rate-chart").setAttribute("aria-label", words.rates);
  }

  // ---------------------------------------------------------------- inside a step

  buildInside() {
    const { words, setting, steps } = this;
    if (!setting.inside) return;
    const places = placesOf(this.embedded.sizes);
    const select = element("select", { name: "of" });
    select.setAttribute("aria-label", words.insideOf);
    for (const { label, isOn } of setting.optimizers) {
      if (isOn)
        select.append(
          element("option", { value: label, textContent: label, selected: label === setting.of }),
        );
    }
    select.addEventListener("change", () =>
      this.change({ of: select.value }, () => this.buildInside()),
    );
    const step = slider({
      label: words.step,
      name: "step",
      isWide: true,
      values: Array.from({ length: steps }, (_, k) => k + 1),
      value: this.limitedStep(setting.step),
      text: (t) => words.stepOf(t, steps),
      onInput: (t) => this.change({ step: t }),
    });
    const weight = slider({
      label: words.weight,
      name: "weight",
      isWide: true,
      values: places.map((_, w) => w),
      value: setting.weight,
      text: (w) => words.place(places[Math.min(w, places.length - 1)]),
      onInput: (w) => this.change({ weight: w }),
    });
    const focused = document.activeElement?.name;
    find("inside-controls").replaceChildren(select, step, weight);
    find("inside-controls").style.setProperty("--own", this.colors[setting.of]);
    if (["of", "step", "weight"].includes(focused))
      find("inside-controls").querySelector(`[name=${focused}]`).focus();
  }

  showInside() {
    const { lab, words, setting } = this;
    const { recorder } = lab;
    const [terms, unit, color] = [find("terms"), find("unit"), this.colors[setting.of]];
    for (const part of [terms, unit]) {
      part.style.setProperty("--own", color);
      part.replaceChildren();
    }
    if (!recorder || this.isHidden) return;
    const t = this.limitedStep(setting.step);
    this.boxes = drawWeights(find("weights"), recorder, color, t);
    find("weights").setAttribute("aria-label", words.allWeights);
    find("formula").replaceChildren(...formulaOf(recorder.training.rule));
    terms.append(...chosenWeight(recorder, t, words));
    unit.append(...othersOfUnit(recorder, t, words));
  }

  // ---------------------------------------------------------------- guess first

  buildGuess() {
    const { guess, words, setting } = this;
    const button = find("guess-button");
    button.textContent = guess ? words.stopGuess : words.guess;
    button.setAttribute("aria-pressed", String(!!guess));
    find("guess").hidden = !guess;
    if (!guess) return;
    const on = setting.optimizers.filter(({ isOn }) => isOn).map(({ label }) => label);
    guess.chosen = guess.chosen.filter((label) => on.includes(label));
    const choices = on.map((label) => {
      const place = element("b", { textContent: guess.placeOf(label) || "·" });
      const choice = element(
        "button",
        { type: "button", disabled: guess.phase !== "ask" },
        place,
        label,
      );
      choice.style.setProperty("--own", this.colors[label]);
      choice.addEventListener("click", () => {
        guess.choose(label);
        this.buildGuess();
        find("guess").querySelectorAll(".choices button")[on.indexOf(label)].focus();
      });
      return choice;
    });
    const act = (text, isEnabled, does) => {
      const made = element("button", {
        type: "button",
        className: "main",
        textContent: text,
        disabled: !isEnabled,
      });
      made.addEventListener("click", does);
      return made;
    };
    const deal = element("button", { type: "button", textContent: words.deal });
    deal.addEventListener("click", () => this.deal());
    const { phase, pairs } = guess;
    const told =
      pairs &&
      (pairs.right === pairs.all ? words.allRight : words.someRight(pairs.right, pairs.all));
    find("guess").replaceChildren(
      element("p", { textContent: told ?? (phase === "watch" ? words.wait : words.question) }),
      element("div", { className: "choices" }, ...choices),
      element(
        "div",
        { className: "choices" },
        phase === "told"
          ? act(words.again, true, () => this.deal())
          : act(
              words.train,
              phase === "ask" && guess.chosen.length === on.length && on.length > 1,
              () => this.startToWatch(),
            ),
        ...(phase === "ask" ? [deal] : []),
      ),
      element("p", {
        className: "note",
        textContent: guess.asked ? words.score(guess.right, guess.asked) : "",
      }),
    );
  }

  deal() {
    this.become({ ...this.setting, optimizers: withOtherRates(this.setting.optimizers) });
  }

  startToWatch() {
    this.guess.phase = "watch";
    this.guess.since = null;
    this.trainAnew(true);
    this.buildGuess();
  }

  // Let the trainings go as far as the time says, and judge at the end.
  watch(now) {
    const { guess, lab } = this;
    guess.since ??= now;
    const share = wantsNoMotion.matches ? 1 : (now - guess.since) / (1000 * WATCH);
    lab.limit = share < 1 ? Math.ceil(share * lab.steps) : Infinity;
    if (share < 1 || !lab.isDone) return;
    const losses = {};
    for (const { optimizer, trainings } of lab.runs) {
      losses[optimizer.label] = quartiles(trainings.map(({ end }) => end.loss))[1];
    }
    guess.judge(losses);
    this.buildGuess();
  }

  // ---------------------------------------------------------------- the check against PyTorch

  // One check after the other, a few milliseconds each.
  checkAgainstTorch() {
    this.checks = [];
    const next = () => {
      const one = this.embedded.checks[this.checks.length];
      if (one) {
        this.checks.push(check(this.embedded, this.lab.problem, one));
        setTimeout(next);
      }
      if (!one || this.checks.length === 1) this.showChecks();
    };
    this.showChecks();
    setTimeout(next);
  }

  showChecks() {
    const { words, embedded, checks } = this;
    const isDone = checks.length === embedded.checks.length;
    const failed = checks.filter(({ passed }) => !passed).length;
    const [summary, note, list] = find("check").children;
    find("check").className = isDone ? (failed ? "bad" : "good") : "";
    summary.textContent = !isDone
      ? words.checking
      : failed
        ? `✗ ${words.disagrees(embedded.torch, failed)}`
        : `✓ ${words.agrees(embedded.torch, checks.length, DIGITS)}`;
    note.textContent = words.checkNote(DIGITS);
    list.replaceChildren(
      ...checks.map((result, k) => {
        const { passed, agrees, steps, here, there } = result;
        const end =
          passed && agrees === steps ? "" : words.checkFails(format(here, 7), format(there, 7));
        const text = words.checkRow(embedded.checks[k], result) + end;
        return element("li", { className: passed ? "" : "bad", textContent: text });
      }),
    );
  }
}

// A colour for each label: its own, or else one that no label here has. Colours that belong to no
// optimizer are given out first.
function colorsOf(labels, { colors, palette }, shade) {
  const taken = labels.map((label) => colors[label]);
  const own = Object.values(colors);
  const free = palette.filter((color) => !taken.includes(color));
  const inOrder = [...free.filter((c) => !own.includes(c)), ...free.filter((c) => own.includes(c))];
  const given = {};
  for (const label of labels) given[label] = shade(colors[label] ?? inOrder.shift() ?? palette[0]);
  return given;
}

// A colour mixed with white, to be seen on a dark ground.
function lighter(color) {
  const parts = [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16));
  return `rgb(${parts.map((part) => Math.round(0.75 * part + 0.25 * 255)).join(" ")})`;
}

globalThis.live = new LivePage(JSON.parse(find("data").textContent)); // to look at, in the console
