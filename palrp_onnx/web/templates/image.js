// Pictures: pixels for the model, computed as Pillow and the image processor compute them.
import { Refusal, load, tensor } from "./run.js";

export async function openImage(facts) {
  const { size: [width, height], shape, values } = facts.probe;
  const found = array(facts, looked(facts, probe(width, height)).picture);
  if (String(found.dims) !== String(shape) || values.some(([place, value]) => Math.abs(found.data[place] - value) > 1e-6))
    throw new Refusal("Pictures do not become in this browser the numbers that they become in Python, so that nothing is explained.");
  return { read: (file) => read(facts, file) };
}

/** The same picture as in Python. */
function probe(width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, k = 0; y < height; y++)
    for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) data[k++] = (7 * x + 13 * y + 29 * x * y + 85 * c) % 256;
  return { width, height, channels: 3, data };
}

async function read(facts, file) {
  if (!file) throw new Refusal("There is no picture.");
  deep(new Uint8Array(await file.slice(0, 1 << 16).arrayBuffer()));
  const original = await decoded(file);
  const seen = looked(facts, original);
  const { dims, data } = array(facts, seen.picture);
  facts.shape.forEach((length, axis) => {
    if (axis > 0 && length !== null && length !== dims[axis])
      throw new Refusal(`The picture becomes an array [${dims}], and the model takes [${facts.shape}].`);
  });
  const sides = [seen.picture.height, seen.picture.width];
  const [rows, columns] = sides.map((length, axis) =>
    facts.patch ? Math.floor(length / facts.patch[axis]) : Math.min(facts.grid, length));
  return {
    feeds: { [facts.input]: tensor(facts.type, data, dims) }, rows, columns, first: 0, count: rows * columns,
    names: Array.from({ length: rows * columns }, (_, k) => `(${Math.floor(k / columns)}, ${k % columns})`),
    size: [original.width, original.height], last: 0, file,
    box: [seen.left, seen.top, seen.picture.width * seen.across, seen.picture.height * seen.down],
  };
}

/** Refuse what a browser would change without a word: channels of 16 bits, and CMYK. */
function deep(head) {
  const png = head[0] === 0x89 && head[1] === 0x50;
  if (png && head[24] === 16) throw new Refusal("The picture has 16 bits a channel: convert it to 8 bits.");
  if (head[0] !== 0xff || head[1] !== 0xd8) return;
  for (let k = 2; k + 9 < head.length && head[k] === 0xff; k += 2 + (head[k + 2] << 8) + head[k + 3]) {
    const frame = head[k + 1] >= 0xc0 && head[k + 1] <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(head[k + 1]);
    if (frame && head[k + 9] === 4) throw new Refusal("The picture is in CMYK colours: convert it to RGB.");
  }
}

async function decoded(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Refusal("The file is no picture that this browser can read.");
  }
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Refusal(`A picture of ${width} × ${height} pixels is too large for this browser.`);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(width * height * 3);
  for (let k = 0, from = 0; k < pixels.length; from += 4) {
    if (data[from + 3] !== 255)
      throw new Refusal("The picture is transparent in places, whose colours browsers do not tell: put it on a background.");
    pixels[k++] = data[from];
    pixels[k++] = data[from + 1];
    pixels[k++] = data[from + 2];
  }
  return { width, height, channels: 3, data: pixels };
}

/** The picture after all moves; its pixel (x, y) begins at (left + across x, top + down y) of the original. */
function looked(facts, original) {
  let seen = { picture: facts.channels === 1 ? grey(original) : original, left: 0, top: 0, across: 1, down: 1 };
  for (const move of facts.moves) seen = move.crop ? cropped(seen, move.crop) : resized(seen, move, facts.tall);
  return seen;
}

/** Luma of ITU-R 601, rounded as in Pillow. */
function grey({ width, height, data }) {
  const light = new Uint8Array(width * height);
  for (let k = 0; k < light.length; k++)
    light[k] = (19595 * data[3 * k] + 38470 * data[3 * k + 1] + 7471 * data[3 * k + 2] + 32768) >>> 16;
  return { width, height, channels: 1, data: light };
}

function cropped(seen, [width, height]) {
  const { picture } = seen;
  const [left, top] = [Math.floor((picture.width - width) / 2), Math.floor((picture.height - height) / 2)];
  const data = new Uint8Array(width * height * picture.channels);
  for (let y = Math.max(0, -top); y < Math.min(height, picture.height - top); y++) {
    const from = Math.max(0, left), to = Math.min(picture.width, left + width);
    const row = (y + top) * picture.width;
    const part = picture.data.subarray((row + from) * picture.channels, (row + to) * picture.channels);
    data.set(part, (y * width + from - left) * picture.channels);
  }
  return {
    ...seen, picture: { ...picture, width, height, data },
    left: seen.left + left * seen.across, top: seen.top + top * seen.down,
  };
}

function resized(seen, move, tall) {
  const { picture } = seen;
  const [width, height] = move.resize ?? sidesOf(picture, move.edge);
  if (!width || !height || width * height > 89478485)
    throw new Refusal(`A picture of ${picture.width} × ${picture.height} pixels is too elongated.`);
  const made = move.filter === "NEAREST" ? nearest(picture, width, height) : filtered(picture, width, height, move.filter, tall);
  return {
    ...seen, picture: made,
    across: seen.across * picture.width / width, down: seen.down * picture.height / height,
  };
}

function sidesOf({ width, height }, shortest) {
  const longer = Math.floor(shortest * Math.max(width, height) / Math.min(width, height));
  return width <= height ? [shortest, longer] : [longer, shortest];
}

function nearest(picture, width, height) {
  const places = (from, to) => {
    const step = from / to;
    let at = step / 2;
    return Array.from({ length: to }, () => {
      const place = Math.floor(at);
      at += step;
      return place;
    });
  };
  const [columns, rows] = [places(picture.width, width), places(picture.height, height)];
  const data = new Uint8Array(width * height * picture.channels);
  let k = 0;
  for (const y of rows)
    for (const x of columns)
      for (let c = 0; c < picture.channels; c++) data[k++] = picture.data[(y * picture.width + x) * picture.channels + c];
  return { ...picture, width, height, data };
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
/** Weights at a distance, and where they end: the kernels of image processing. */
const KERNELS = {
  BOX: [(x) => (x > -0.5 && x <= 0.5 ? 1 : 0), 0.5],
  BILINEAR: [(x) => Math.max(0, 1 - Math.abs(x)), 1],
  HAMMING: [(x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0), 1],
  BICUBIC: [(x) => cubic(Math.abs(x)), 2],
  LANCZOS: [(x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0), 3],
};
/** Keys' cubic convolution with a = −0.5. */
const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0);
/** Weights are whole multiples of 1 / ONE, as in Pillow. */
const ONE = 2 ** 22;

/** For every new place the first old one, and the weights of it and those after it. */
function weights(from, to, filter) {
  const [kernel, reach] = KERNELS[filter];
  const step = from / to, stretch = Math.max(step, 1), support = reach * stretch;
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * step;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const found = Array.from({ length: end - first }, (_, k) => kernel((k + first - centre + 0.5) * (1 / stretch)));
    const sum = found.reduce((a, b) => a + b, 0);
    const shares = found.map((each) => (sum === 0 ? each : each / sum) * ONE);
    return [first, shares.map((each) => Math.trunc(each < 0 ? each - 0.5 : each + 0.5))];
  });
}

/** One axis after the other, rounded to bytes each time, in the order of the Pillow that made the page. */
function filtered(picture, width, height, filter, tall) {
  const [fewer, narrower] = [picture.height - height, picture.width - width];
  return tall && fewer > 0 && fewer > 2 * narrower
    ? across(down(picture, height, filter), width, filter)
    : down(across(picture, width, filter), height, filter);
}

function across(picture, width, filter) {
  const { width: before, height, channels, data } = picture;
  if (width === before) return picture;
  const made = new Uint8ClampedArray(width * height * channels);
  weights(before, width, filter).forEach(([first, shares], x) => {
    for (let y = 0; y < height; y++)
      for (let c = 0; c < channels; c++) {
        let sum = ONE / 2, from = (y * before + first) * channels + c;
        for (const share of shares) (sum += share * data[from]), (from += channels);
        made[(y * width + x) * channels + c] = Math.floor(sum / ONE);
      }
  });
  return { ...picture, width, data: made };
}

function down(picture, height, filter) {
  const { width, height: before, channels, data } = picture;
  if (height === before) return picture;
  const row = width * channels, made = new Uint8ClampedArray(row * height);
  weights(before, height, filter).forEach(([first, shares], y) => {
    for (let x = 0; x < row; x++) {
      let sum = ONE / 2, from = first * row + x;
      for (const share of shares) (sum += share * data[from]), (from += row);
      made[y * row + x] = Math.floor(sum / ONE);
    }
  });
  return { ...picture, height, data: made };
}

/** (pixels · factor − mean) / std, the product in 64 bits and the rest in 32, in the order of axes. */
function array(facts, { width, height, channels, data }) {
  const f = Math.fround, numbers = new Float32Array(data.length), plane = width * height;
  for (let place = 0; place < plane; place++)
    for (let c = 0; c < channels; c++) {
      let value = data[place * channels + (facts.reversed ? channels - 1 - c : c)];
      if (facts.factor !== null) value = f(value * facts.factor);
      if (facts.mean !== null) {
        value = f(f(value - f(facts.mean[c])) / f(facts.std[c]));
        if (facts.again) value = f(value / f(facts.std[c]));
      }
      numbers[facts.last ? place * channels + c : c * plane + place] = value;
    }
  return { data: numbers, dims: facts.last ? [1, height, width, channels] : [1, channels, height, width] };
}
