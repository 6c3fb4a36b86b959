// The map, the ledger and the numbers of one explanation.

/** An element with properties and children; texts are never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const { style = {}, data = {}, ...rest } = properties;
  const found = Object.assign(document.createElement(tag), rest);
  Object.assign(found.dataset, data);
  for (const [name, value] of Object.entries(style)) found.style.setProperty(name, value);
  found.append(...children);
  return found;
}

/** A signed number with a few digits, small ones with an exponent. */
function written(value, count) {
  if (!value) return "0";
  const short = Number(value.toPrecision(count));
  return ((value > 0 ? "+" : "") + (Math.abs(value) < 1e-4 ? short.toExponential() : short)).replaceAll("-", "−");
}
export const number = (value) => written(value, 3);
const digits = (value) => written(value, 6);

const HALF = 127;
/** Classes of the palette: 128 colours on each side of zero, and 128 of the score. */
function shade(value, limit, name) {
  const step = limit ? Math.round(Math.min(Math.abs(value) / limit, 1) * HALF) : 0;
  if (name === "score") return value > 0 ? `s${step}` : "s0";
  return value < 0 ? `k${HALF - step}` : `k${HALF + 1 + step}`;
}

const SIGNED = ["total", "content", "position"];
const sum = (values, units) => units.reduce((all, unit) => all + values[unit], 0);

/** The number with the full colour: the largest of ordinary units, in all signed maps or of the score. */
function limitOf(maps, groups, name) {
  const names = name === "score" ? ["score"] : SIGNED;
  const largest = (some) => Math.max(0, ...names.flatMap((each) => some.map((units) => {
    const value = sum(maps[each], units);
    return name === "score" ? value : Math.abs(value);
  })));
  return largest(groups.filter((each) => !each.special).map((each) => each.units)) || largest(groups.map((each) => each.units));
}

/** Draw the map of `name`; returns the limit of its colours. */
export function drawMap(box, input, found, view, colours, say) {
  return input.flow ? drawText(box, input, found, view, say) : drawPicture(box, input, found, view, colours, say);
}

function drawText(box, input, { maps }, { name, by }, say) {
  const tokens = input.flow.flatMap(({ units, special }) => units.map((unit) => ({ units: [unit], special })));
  const groups = by === "words" ? input.flow.filter(({ units }) => units.length) : tokens;
  const limit = limitOf(maps, groups, name);
  const line = make("p", { dir: "auto", lang: "" });
  const piece = (text, units, special) => {
    const value = sum(maps[name], units), marks = [Math.abs(value) > limit && "over", special && "special"];
    if (units.some((unit) => input.unknown[unit])) marks.push("unknown");
    const found = make("span", { className: ["w", shade(value, limit, name), ...marks.filter(Boolean)].join(" ") }, text);
    if (special) found.dir = "ltr";
    shown.push([found, text, units]);
    return found;
  };
  const shown = [];
  for (const { text, units, special, alone } of input.flow) {
    if (special && line.hasChildNodes()) line.append(" ");
    const blank = special || alone ? "" : text.match(/^\s*/)[0];
    if (!units.length) line.append(text);
    else if (by === "words") line.append(blank, piece(text.slice(blank.length), units, special));
    else if (units.length === 1) line.append(blank, piece(text.slice(blank.length) || input.names[units[0]], units, special));
    else {
      line.append(blank);
      for (const unit of units) line.append(piece(input.names[unit], [unit], special), "\u200a");
    }
    if (special || alone) line.append(" ");
  }
  const text = make("div", { className: "text", tabIndex: 0 }, line);
  text.setAttribute("role", "application");
  text.setAttribute("aria-label", `Map of ${shown.length} ${by}; arrow keys read the ${by}`);
  box.replaceChildren(text);
  const at = (place) => {
    text.querySelector(".hit-unit")?.classList.remove("hit-unit");
    shown[place][0].classList.add("hit-unit");
    say(shown[place][1].trim(), shown[place][2]);
  };
  shown.forEach(([element], place) => element.addEventListener("pointerenter", () => at(place)));
  steps(text, shown.length, 1, at);
  return limit;
}

function drawPicture(box, input, { maps }, { name }, colours, say) {
  const { rows, columns, size: [width, height] } = input;
  const groups = maps.total.map((_, unit) => ({ units: [unit] }));
  const limit = limitOf(maps, groups, name);
  const cells = make("canvas", { className: "cells", width: columns, height: rows });
  cells.setAttribute("aria-hidden", "true");
  const context = cells.getContext("2d");
  maps[name].forEach((value, unit) => {
    context.globalAlpha = limit ? Math.min(Math.max(name === "score" ? value : Math.abs(value), 0) / limit, 1) : 0;
    context.fillStyle = name === "score" ? colours.score : value < 0 ? colours.minus : colours.plus;
    context.fillRect(unit % columns, Math.floor(unit / columns), 1, 1);
  });
  const cursor = make("i", { className: "cursor", hidden: true });
  const [left, top, wide, high] = input.box;
  const part = (value, whole) => `${100 * value / whole}%`;
  const place = { left: part(left, width), top: part(top, height), width: part(wide, width), height: part(high, height) };
  const field = make("div", { className: "field", tabIndex: 0, style: place }, cells, cursor);
  field.setAttribute("role", "application");
  field.setAttribute("aria-label", `Map of ${rows} by ${columns} patches; arrow keys read the patches`);
  const ground = make("img", { className: "ground", src: input.address, alt: "The picture that was explained" });
  const ratio = `${width} / ${height}`;
  box.replaceChildren(make("div", { className: "stack light", style: { "aspect-ratio": ratio, "--ratio": ratio } }, ground, field));
  const at = (unit) => {
    Object.assign(cursor.style, {
      left: part(unit % columns, columns), top: part(Math.floor(unit / columns), rows), width: part(1, columns), height: part(1, rows),
    });
    cursor.hidden = false;
    say(input.names[unit], [unit]);
  };
  field.addEventListener("pointermove", (event) => {
    const { left, top, width, height } = field.getBoundingClientRect();
    const [x, y] = [Math.floor((event.clientX - left) / width * columns), Math.floor((event.clientY - top) / height * rows)];
    if (x >= 0 && x < columns && y >= 0 && y < rows) at(y * columns + x);
  });
  steps(field, rows * columns, columns, at);
  return limit;
}

/** Arrow keys move through a map; up and down go a row. */
function steps(element, count, row, at) {
  let place = -1;
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row };
  element.addEventListener("keydown", (event) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = place < 0 ? 0 : place + moves[event.key];
    if (next >= 0 && next < count) at((place = next));
  });
}

const bar = (value, largest, sign) =>
  make("td", { className: "bar", ariaHidden: "true" }, make("i", {
    className: sign,
    style: { left: `${50 - 50 * Math.max(-value, 0) / largest}%`, width: `${50 * Math.abs(value) / largest}%` },
  }));

export function drawLedger(body, remark, { ledger, value }) {
  const residual = value - ledger.reduce((all, [, amount]) => all + amount, 0);
  const sizes = ledger.reduce((all, [, amount]) => all + Math.abs(amount), 0);
  const rows = [...ledger, ["residual", residual], ["target", value]];
  const largest = Math.max(...rows.map(([, amount]) => Math.abs(amount))) || 1;
  body.replaceChildren(...rows.map(([name, amount]) => make("tr", { className: name === "target" ? "sum" : "" },
    make("th", { scope: "row" }, name), make("td", { className: "n" }, digits(amount)),
    bar(amount, largest, amount < 0 ? "minus" : "plus"))));
  remark.textContent = ledger.length
    ? `residual: ${Math.abs(sizes ? residual / sizes : 1).toExponential(1)} of the entries' sizes`
    : "the explainer was compiled without a ledger";
}

export function drawNumbers(body, input, { maps }) {
  const units = Array.from({ length: input.count }, (_, k) => input.first + k);
  const cell = (value) => make("td", { className: "n" }, digits(value));
  body.replaceChildren(...units.map((unit) => make("tr", {},
    make("td", { className: "n" }, String(unit)), make("th", { scope: "row" }, make("bdi", {}, input.names[unit])),
    cell(maps.content[unit]), cell(maps.position[unit]), cell(maps.total[unit]), cell(maps.score[unit]))));
}

const LARGEST = 5;

/** The largest scores, with their probabilities where there are any. */
export function drawAnswers(body, { scores, target }, labelOf, chances) {
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, LARGEST);
  const least = Math.min(...order.map((k) => scores[k]), 0);
  const share = (k) => (chances ? chances[k] : (scores[k] - least) / (scores[order[0]] - least || 1));
  body.replaceChildren(...order.map((k) => make("tr", { className: k === target ? "explained" : "" },
    make("th", { scope: "row" }, make("bdi", {}, labelOf(k))),
    make("td", { className: "n" }, chances ? chances[k].toPrecision(3) : number(scores[k])),
    make("td", { className: "bar", ariaHidden: "true" }, make("i", { style: { width: `${100 * share(k)}%` } })))));
}
