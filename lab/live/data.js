// What PyTorch made, as page.py wrote it down: data, first weights, the order of mini-batches.

// Numbers in base64, as an array of that class.
export function decode(text, ArrayClass) {
  return new ArrayClass(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

// The problem: the net's shape and loss, and the rows of all mini-batches, epoch after epoch.
export function problemOf({ sizes, activation, loss, order }) {
  return { sizes, activation, loss, order: decode(order, Uint16Array) };
}

// The data of a seed with so much noise, { train, heldOut, firstWeights }: x and y are lists of
// columns, and n counts the rows.
export function dataOf(embedded, seed, noise) {
  const { index, columns, noisy, weights } = embedded.seeds[seed];
  const clean = index
    ? embedded.tables.map((table) =>
        rowsOf(decode(table, Float32Array), decode(index, Uint16Array)),
      )
    : columns.map((column) => decode(column, Float32Array));
  const all = clean.map((column, i) =>
    noisy[i] ? withNoise(column, decode(noisy[i], Float32Array), noise / embedded.noise) : column,
  );
  const part = (from, to) => ({
    x: all.slice(0, embedded.inputs).map((column) => column.subarray(from, to)),
    y: all.slice(embedded.inputs).map((column) => column.subarray(from, to)),
    n: to - from,
  });
  return {
    train: part(0, embedded.samples),
    heldOut: part(embedded.samples, all[0].length),
    firstWeights: decode(weights, Float32Array),
  };
}

// Where many rows are the same, as those of evenly spaced x, a table holds each of them once.
const rowsOf = (table, index) => Float32Array.from(index, (row) => table[row]);

// A column as it would be with another share of the noise that it was drawn with.
const withNoise = (clean, noisy, share) => clean.map((y, s) => y + share * (noisy[s] - y));
