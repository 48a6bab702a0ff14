// A panel with axes, drawn on a canvas: sharp on any screen, and in the page's colours.

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
  }

  // Clear the panel and draw its axes. x and y are { from, to, label, isLog }; a label may lack.
  axes(x, y) {
    const { canvas, pen } = this;
    const sharpness = globalThis.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * sharpness))
      canvas.width = Math.round(width * sharpness);
    if (canvas.height !== Math.round(height * sharpness))
      canvas.height = Math.round(height * sharpness);
    pen.setTransform(sharpness, 0, 0, sharpness, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const size = parseFloat(style.fontSize);
    this.colors = Object.fromEntries(
      ["ink", "soft", "grid", "faint", "ground"].map((name) => [
        name,
        style.getPropertyValue(`--${name}`),
      ]),
    );
    pen.font = `${size}px ${style.fontFamily}`;
    pen.lineJoin = "round";
    Object.assign(this, { x, y, size });

    const ticks = { x: ticksOf(x, width / (7.5 * size)), y: ticksOf(y, height / (3 * size)) };
    const widest = Math.max(0, ...ticks.y.map((tick) => pen.measureText(tick.text).width));
    this.left = Math.ceil(widest + (y.label ? 2.4 : 0.7) * size);
    this.right = width - Math.ceil(0.9 * size);
    this.top = Math.ceil(0.7 * size);
    this.bottom = height - Math.ceil((x.label ? 2.9 : 1.7) * size);
    this.drawTicks(ticks);
    this.drawLabels(width, height);
  }

  drawTicks(ticks) {
    const { pen, size, left, right, top, bottom, colors } = this;
    pen.lineWidth = 1;
    pen.fillStyle = colors.soft;
    for (const { value, text } of ticks.x) {
      const at = Math.round(this.placeX(value)) + 0.5;
      this.stroke(colors.grid, [
        [at, top],
        [at, bottom],
      ]);
      this.write(text, at, bottom + 0.45 * size, "center", "top");
    }
    for (const { value, text } of ticks.y) {
      const at = Math.round(this.placeY(value)) + 0.5;
      this.stroke(colors.grid, [
        [left, at],
        [right, at],
      ]);
      this.write(text, left - 0.5 * size, at, "right", "middle");
    }
    this.stroke(colors.soft, [
      [left + 0.5, top],
      [left + 0.5, bottom + 0.5],
      [right, bottom + 0.5],
    ]);
  }

  drawLabels(width, height) {
    const { pen, size, x, y, left, right, top, bottom } = this;
    pen.fillStyle = this.colors.ink;
    this.write(x.label ?? "", (left + right) / 2, height - 0.15 * size, "center", "bottom");
    pen.save();
    pen.translate(0.75 * size, (top + bottom) / 2);
    pen.rotate(-Math.PI / 2);
    this.write(y.label ?? "", 0, 0, "center", "middle");
    pen.restore();
  }

  write(text, x, y, align, baseline) {
    Object.assign(this.pen, { textAlign: align, textBaseline: baseline });
    this.pen.fillText(text, x, y);
  }

  placeX(value) {
    return this.left + share(value, this.x) * (this.right - this.left);
  }

  placeY(value) {
    return this.bottom - share(value, this.y) * (this.bottom - this.top);
  }

  // Draw nothing beyond the axes.
  inside(draw) {
    const { pen, left, right, top, bottom } = this;
    pen.save();
    pen.beginPath();
    pen.rect(left, top - 2, right - left + 2, bottom - top + 2);
    pen.clip();
    draw();
    pen.restore();
  }

  stroke(color, points, width = this.pen.lineWidth) {
    const { pen } = this;
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.beginPath();
    for (const [x, y] of points) pen.lineTo(x, y);
    pen.stroke();
  }

  // A curve through (xs[k], ys[k]). It ends where it is not finite.
  line(xs, ys, color, width) {
    const { pen } = this;
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.beginPath();
    for (const [x, y] of this.points(xs, ys)) pen.lineTo(x, y);
    pen.stroke();
  }

  // Where the points of a curve lie. Of more than four in the width of a pixel, the lowest and the
  // highest stand for all.
  points(xs, ys) {
    const end = ys.findIndex((y) => !Number.isFinite(y));
    const n = end < 0 ? ys.length : end;
    const group = Math.max(1, Math.floor(n / (2 * (this.right - this.left))));
    const points = [];
    for (let k = 0; k < n; k += group) {
      let [low, high] = [Infinity, -Infinity];
      for (let i = k; i < Math.min(k + group, n); i++) {
        low = Math.min(low, ys[i]);
        high = Math.max(high, ys[i]);
      }
      const x = this.placeX(xs[k]);
      points.push([x, this.limited(this.placeY(high))]);
      if (low < high) points.push([x, this.limited(this.placeY(low))]);
    }
    return points;
  }

  // A place not too far away to be drawn.
  limited(place) {
    return Math.min(1e4, Math.max(-1e4, place));
  }

  // The band between two curves.
  band(xs, low, high, color) {
    const { pen } = this;
    const above = Array.from(high, (y) => (Number.isFinite(y) ? y : 1e30));
    const below = this.points(xs, low);
    pen.fillStyle = color;
    pen.globalAlpha = 0.2;
    pen.beginPath();
    for (const [x, y] of below) pen.lineTo(x, y);
    for (const [x, y] of this.points(
      xs.slice(0, below.length),
      above.slice(0, below.length),
    ).reverse()) {
      pen.lineTo(x, y);
    }
    pen.fill();
    pen.globalAlpha = 1;
  }

  // Points, so small that squares do.
  dots(xs, ys, color, radius) {
    const { pen } = this;
    pen.fillStyle = color;
    pen.beginPath();
    for (let k = 0; k < xs.length; k++) {
      pen.rect(this.placeX(xs[k]) - radius, this.placeY(ys[k]) - radius, 2 * radius, 2 * radius);
    }
    pen.fill();
  }

  // A ring: where one is. Of what is not finite, a cross at the top.
  mark(x, y, color) {
    const { pen, size } = this;
    const [at, radius] = [this.placeX(x), 0.42 * size];
    pen.lineWidth = 0.2 * size;
    if (Number.isFinite(y)) {
      pen.beginPath();
      pen.arc(at, Math.max(this.top, this.placeY(y)), radius, 0, 2 * Math.PI);
      pen.fillStyle = this.colors.ground;
      pen.fill();
      pen.strokeStyle = color;
      pen.stroke();
    } else {
      const top = this.top + radius;
      this.stroke(color, [
        [at - radius, top - radius],
        [at + radius, top + radius],
      ]);
      this.stroke(color, [
        [at - radius, top + radius],
        [at + radius, top - radius],
      ]);
    }
  }
}

function share(value, { from, to, isLog }) {
  if (!isLog) return (value - from) / (to - from);
  return Math.log(Math.max(value, 1e-300) / from) / Math.log(to / from);
}

// About so many ticks, at plain numbers: { value, text }.
export function ticksOf({ from, to, isLog }, count) {
  return isLog ? logTicks(from, to, count) : linearTicks(from, to, count);
}

function linearTicks(from, to, count) {
  const rough = (to - from) / Math.max(2, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const digits = Math.max(
    0,
    -Math.floor(Math.log10(step) + 1e-9) + (Math.abs(step / power - 2.5) < 1e-9),
  );
  const ticks = [];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= to * (1 + 1e-9); k++) {
    ticks.push({ value: k * step, text: (k * step).toFixed(digits).replace("-", "−") });
  }
  return ticks;
}

function logTicks(from, to, count) {
  const decades = Math.log10(to / from);
  const factors = 2 * decades <= count ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / Math.max(2, count)));
  const ticks = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to) + 1e-9; power++) {
    if (power % every) continue;
    for (const factor of factors) {
      const value = Number(`${factor}e${power}`);
      if (value >= from * 0.999 && value <= to * 1.001) ticks.push({ value, text: String(value) });
    }
  }
  return ticks;
}
