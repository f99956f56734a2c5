/** Resizing as Pillow 13 does it, to the last bit: weights of 22 bits, one pass for each axis with uint8 between them.

A photo is {height, width, data}: RGB, three bytes a pixel, row by row. */

const BITS = 22; // fraction bits of a weight
const REDUCE_BITS = 24; // fraction bits of the reciprocals that `reduce` divides by
const PAD_GREY = 127;
const FILTERS = { bilinear: { support: 1, height: bilinear }, bicubic: { support: 2, height: bicubic }, lanczos: { support: 3, height: lanczos } };

function bilinear(x) {
  const apart = Math.abs(x);
  return apart < 1 ? 1 - apart : 0;
}

function bicubic(x) {
  const [a, apart] = [-0.5, Math.abs(x)];
  if (apart < 1) return ((a + 2) * apart - (a + 3)) * apart * apart + 1;
  return apart < 2 ? (((apart - 5) * apart + 8) * apart - 4) * a : 0;
}

function lanczos(x) {
  const sinc = (angle) => (angle === 0 ? 1 : Math.sin(angle * Math.PI) / (angle * Math.PI));
  return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/** The model input: a photo fitted into `height`×`width` as the bundle's `preprocess` says. */
export function preprocess(photo, { height, width, fit, interpolation }) {
  if (photo.height === height && photo.width === width) return photo;
  if (fit === "squash") return resize(photo, height, width, interpolation);
  if (fit === "crop") {
    const scale = Math.min(photo.width / width, photo.height / height);
    const span = (side, goal) => [(side - goal * scale) / 2, (side - goal * scale) / 2 + goal * scale].map(Math.fround);
    return resize(photo, height, width, interpolation, [span(photo.height, height), span(photo.width, width)]);
  }
  const scale = Math.min(width / photo.width, height / photo.height);
  const inner = resize(photo, Math.max(1, even(photo.height * scale)), Math.max(1, even(photo.width * scale)), interpolation);
  const [top, left] = [(height - inner.height) >> 1, (width - inner.width) >> 1];
  const data = new Uint8Array(3 * height * width).fill(PAD_GREY);
  for (let y = 0; y < inner.height; y++) {
    data.set(inner.data.subarray(3 * inner.width * y, 3 * inner.width * (y + 1)), 3 * (width * (top + y) + left));
  }
  return { height, width, data };
}

/** A number rounded as Python rounds: halves to the even neighbour. */
export function even(number) {
  const whole = Math.floor(number);
  const rest = number - whole;
  return rest < 0.5 || (rest === 0.5 && whole % 2 === 0) ? whole : whole + 1;
}

/** Resize with antialiasing. `spans` say from where to where rows and columns are resampled, some of them in part. */
export function resize(photo, height, width, filter, spans = [[0, photo.height], [0, photo.width]]) {
  const [down, across] = [photo.height - height, photo.width - width];
  const rows = (each) => vertical(each, weights(each.height, spans[0], height, filter));
  const columns = (each) => horizontal(each, weights(each.width, spans[1], width, filter));
  // Each pass rounds and clips, so that their order shows in the result.
  return down > 0 && down > 2 * across ? columns(rows(photo)) : rows(columns(photo));
}

/** For each pixel of the result, the first pixel of its filter, how many there are, and their weights. */
function weights(side, [from, to], goal, filter) {
  const scale = Math.fround(to - from) / goal;
  const stretch = Math.max(scale, 1);
  const support = FILTERS[filter].support * stretch;
  const most = 2 * Math.ceil(support) + 1;
  const [starts, counts, values] = [new Int32Array(goal), new Int32Array(goal), new Int32Array(goal * most)];
  for (let place = 0; place < goal; place++) {
    const centre = from + (place + 0.5) * scale;
    const start = Math.floor(Math.max(centre - support + 0.5, 0));
    const count = Math.min(Math.floor(centre + support + 0.5), side) - start;
    const heights = Array.from({ length: count }, (_, step) => FILTERS[filter].height((step + start - centre + 0.5) * (1 / stretch)));
    const sum = heights.reduce((total, each) => total + each, 0);
    for (const [step, each] of heights.entries()) {
      const share = sum === 0 ? 0 : each / sum;
      values[place * most + step] = Math.trunc((share < 0 ? -0.5 : 0.5) + share * 2 ** BITS);
    }
    starts[place] = start;
    counts[place] = count;
  }
  return { goal, most, starts, counts, values };
}

const level = (sum) => (sum < 0 ? 0 : sum >= 2 ** (BITS + 8) ? 255 : sum >> BITS);

function horizontal({ height, width, data }, { goal, most, starts, counts, values }) {
  const made = new Uint8Array(3 * height * goal);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < goal; x++, to += 3) {
      let from = 3 * (y * width + starts[x]);
      let [red, green, blue] = [1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)];
      const first = x * most;
      for (let end = first + counts[x], step = first; step < end; step++, from += 3) {
        const weight = values[step];
        red += Math.imul(data[from], weight);
        green += Math.imul(data[from + 1], weight);
        blue += Math.imul(data[from + 2], weight);
      }
      made[to] = level(red);
      made[to + 1] = level(green);
      made[to + 2] = level(blue);
    }
  }
  return { height, width: goal, data: made };
}

function vertical({ width, data }, { goal, most, starts, counts, values }) {
  const row = 3 * width;
  const made = new Uint8Array(row * goal);
  const sums = new Int32Array(row);
  for (let y = 0; y < goal; y++) {
    sums.fill(1 << (BITS - 1));
    for (let step = 0; step < counts[y]; step++) {
      const [weight, from] = [values[y * most + step], row * (starts[y] + step)];
      for (let x = 0; x < row; x++) sums[x] += Math.imul(data[from + x], weight);
    }
    for (let x = 0, to = row * y; x < row; x++, to++) made[to] = level(sums[x]);
  }
  return { height: goal, width, data: made };
}

/** Squash a photo to a square as `Image.resize` does with the bilinear filter and `reducing_gap=1.0`. */
export function squash(photo, size) {
  const factor = (side) => Math.max(1, Math.floor(side / size));
  const [down, across] = [factor(photo.height), factor(photo.width)];
  const spans = [[0, Math.fround(photo.height / down)], [0, Math.fround(photo.width / across)]];
  return resize(reduce(photo, down, across), size, size, "bilinear", spans);
}

/** The mean of each block of pixels, also of the smaller blocks at the lower and right edge: `Image.reduce`. */
function reduce(photo, down, across) {
  if (down === 1 && across === 1) return photo;
  const [height, width] = [Math.ceil(photo.height / down), Math.ceil(photo.width / across)];
  const data = new Uint8Array(3 * height * width);
  const sums = new Uint32Array(3 * width);
  for (let y = 0; y < height; y++) {
    const rows = Math.min(down, photo.height - y * down);
    sums.fill(0);
    for (let row = y * down; row < y * down + rows; row++) addBlocks(photo, row, across, sums);
    for (let x = 0; x < width; x++) {
      const count = rows * Math.min(across, photo.width - x * across);
      const [half, reciprocal] = [count >> 1, Math.floor(Math.fround(2 ** REDUCE_BITS / count))];
      for (let channel = 3 * x; channel < 3 * x + 3; channel++) {
        data[3 * y * width + channel] = Math.floor(((sums[channel] + half) * reciprocal) / 2 ** REDUCE_BITS);
      }
    }
  }
  return { height, width, data };
}

function addBlocks({ width, data }, row, across, sums) {
  let from = 3 * row * width;
  for (let x = 0, to = 0; x < width; to += 3) {
    for (const end = Math.min(x + across, width); x < end; x++, from += 3) {
      sums[to] += data[from];
      sums[to + 1] += data[from + 1];
      sums[to + 2] += data[from + 2];
    }
  }
}

/** Cut a photo to a box: top, left, bottom, right as shares of its sides, rounded to whole pixels, at least one. */
export function crop(photo, [top, left, bottom, right]) {
  const edges = (first, last, side) => {
    const low = Math.min(even(first * side), side - 1);
    return [low, Math.max(low + 1, even(last * side))];
  };
  return cut(photo, ...edges(top, bottom, photo.height), ...edges(left, right, photo.width));
}

/** The pixels from one row and column to before another. */
export function cut(photo, top, bottom, left = 0, right = photo.width) {
  const [height, width] = [bottom - top, right - left];
  if (width === photo.width) return { height, width, data: photo.data.subarray(3 * width * top, 3 * width * bottom) };
  const data = new Uint8Array(3 * height * width);
  for (let y = 0; y < height; y++) {
    const from = 3 * (photo.width * (top + y) + left);
    data.set(photo.data.subarray(from, from + 3 * width), 3 * width * y);
  }
  return { height, width, data };
}
