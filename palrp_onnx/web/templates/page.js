// The page: what the visitor enters and chooses, and what is shown.
import { drawAnswers, drawLedger, drawMap, drawNumbers, make, number } from "./draw.js";
import { openImage } from "./image.js";
import { Refusal, load, openModel } from "./run.js";
import { openText } from "./text.js";

const at = (id) => document.getElementById(id);
const [entry, status, problem, result] = [at("input"), at("status"), at("problem"), at("result")];
/** Up to so many entries are all offered as targets, of more those with the largest scores. */
const ALL = 2000, LARGEST = 100;

const view = { name: "total", by: "words" };
let facts, reader, run, input, found;

/** The input and the explanation that are shown. */
export const shown = () => ({ input, ...found });

function fail(error) {
  status.textContent = "";
  result.hidden = true;
  problem.textContent = error instanceof Refusal ? error.message : `This did not work: ${error.message ?? error}`;
  problem.hidden = false;
}

async function start() {
  status.textContent = "Loading the model …";
  facts = await load("page.json", "json");
  reader = facts.text ? await openText(facts.text) : await openImage(facts.image);
  run = await openModel(facts);
  offer();
  status.textContent = "";
  at("explain").disabled = false;
}

/** The name of an entry of the output. */
function labelOf(k) {
  if (facts.labels) return facts.labels[k];
  if (facts.entries === "token" && input) return `${k} ${input.names[k]}`;
  if (facts.entries === "vocabulary" && reader.nameOf) return reader.nameOf(k) || `token ${k}`;
  return `${facts.entries} ${k}`;
}

/** Entries as targets: all, or those with the largest scores; what is chosen stays. */
function offer() {
  const size = found?.scores.length ?? (facts.labels?.length > ALL ? 0 : facts.labels?.length ?? 0);
  let known = [...Array(size).keys()];
  at("number").parentElement.hidden = size <= ALL;
  if (size > ALL) {
    at("number").max = size - 1;
    const chosen = [found.target, found.against].filter((k) => k >= 0);
    known.sort((a, b) => found.scores[b] - found.scores[a]);
    known = [...new Set([...known.slice(0, LARGEST), ...chosen])];
  }
  for (const each of [at("target"), at("against")]) fill(each, known.map((k) => [k, labelOf(k)]));
  if (!at("position") || !input) return;
  const units = Array.from({ length: input.count }, (_, k) => input.first + k);
  fill(at("position"), units.map((unit) => [unit, `${unit} ${input.names[unit]}`]));
}

function fill(select, options) {
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...options.map(([value, text]) => make("option", { value }, text)));
  select.value = options.some(([value]) => String(value) === chosen) ? chosen : "-1";
}

let busy = false, again = false;

async function explain() {
  if (busy) return void (again = true);
  busy = true;
  problem.hidden = true;
  status.textContent = "Explaining …";
  try {
    await new Promise((done) => setTimeout(done, 0)); // the status is shown first
    const given = await reader.read(facts.text ? entry.value : entry.files[0]);
    const choice = { target: -1, against: -1, position: -1 };
    for (const name of Object.keys(choice)) if (at(name)) choice[name] = Number(at(name).value);
    // What was chosen may be beyond a text that became shorter.
    for (const name of facts.entries === "token" ? Object.keys(choice) : ["position"])
      if (choice[name] >= given.first + given.count) choice[name] = -1;
    if (choice.target >= 0 && choice.target === choice.against)
      throw new Refusal("The target is compared with itself: choose another.");
    found = await run(given, choice);
    if (input?.address) URL.revokeObjectURL(input.address);
    input = given;
    if (input.file) input.address = URL.createObjectURL(input.file);
    if (input.flow?.length === 0) throw new Refusal("The tokenizer finds no tokens in the text.");
    offer();
    draw();
    status.textContent = "";
  } catch (error) {
    fail(error);
  } finally {
    busy = false;
    if (again) (again = false), explain();
  }
}

/** Probabilities of all entries, where the model's head has any. */
function chances({ scores }) {
  const links = { sigmoid: (x) => 1 / (1 + Math.exp(-x)), exponential: Math.exp, value: (x) => x };
  if (facts.link in links) return scores.map(links[facts.link]);
  if (facts.link !== "softmax") return null;
  const highest = Math.max(...scores), powers = scores.map((x) => Math.exp(x - highest));
  const whole = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / whole);
}

function draw() {
  const { target, against, best, value, position, scores } = found;
  const probable = chances(found);
  at("named").textContent = labelOf(target) + (against < 0 ? "" : ` rather than ${labelOf(against)}`);
  const said = [[facts.output, number(value)]];
  if (facts.axes === 3) said.push(["at", `${position} ${input.names[position]}`]);
  if (probable && against < 0) said.push(["probability", probable[target].toPrecision(3)]);
  if (target !== best || against >= 0) said.push(["predicted", `${labelOf(best)} ${number(scores[best])}`]);
  at("lead").replaceChildren(...said.map(([name, text]) => make("span", {}, `${name} `, make("b", {}, make("bdi", {}, text)))));
  drawAnswers(at("answers"), found, labelOf, probable);
  drawLedger(at("ledger"), at("residual"), found);
  drawNumbers(at("numbers"), input, found);
  at("covered").textContent = covered();
  ranks();
  result.hidden = false;
  paint();
}

/** How much of the target the map shows, and where the rest is. */
function covered() {
  const { ledger, maps, value } = found;
  const map = maps.total.reduce((all, each) => all + each, 0);
  const entries = ledger.filter(([name]) => name === "content" || name === "position");
  const off = entries.reduce((all, [, amount]) => all + amount, 0) - map;
  const said = [`Of ${number(value)} this map shows ${number(map)}`];
  if (entries.length && Math.abs(off) > 1e-3 * ledger.reduce((all, [, amount]) => all + Math.abs(amount), 0))
    said.push(`${number(off)} is on places that are no ${input.flow ? "token" : "patch"}`);
  if (ledger.length) said.push("the rest is in the ledger");
  const unknown = input.unknown?.filter(Boolean).length;
  return `${said.join("; ")}.${unknown ? ` Framed: ${unknown} tokens stand for what the vocabulary does not have.` : ""}`;
}

/** The score is a map of its own only where it is not the total. */
function ranks() {
  const { total, score } = found.maps, largest = Math.max(...total.map(Math.abs));
  const button = result.querySelector("[data-show=score]");
  button.hidden = score.every((each, unit) => Math.abs(each - total[unit]) <= 1e-6 * largest);
  if (button.hidden && view.name === "score") view.name = "total";
}

function paint() {
  const limit = drawMap(at("map"), input, found, view, facts.colours, read);
  const scored = view.name === "score";
  [at("signed").hidden, at("scored").hidden] = [scored, !scored];
  for (const each of result.querySelectorAll(".high")) each.textContent = number(limit);
  result.querySelector(".low").textContent = number(-limit);
  for (const kind of ["show", "by"])
    for (const button of result.querySelectorAll(`[data-${kind}]`))
      button.setAttribute("aria-pressed", String(button.dataset[kind] === (kind === "show" ? view.name : view.by)));
}

/** What is under the pointer, or where the arrow keys are. */
function read(name, units) {
  const parts = ["total", "content", "position", "score"].map((map) =>
    `${map} ${number(units.reduce((all, unit) => all + found.maps[map][unit], 0))}`);
  at("readout").textContent = `${name}: ${parts.join(", ")}`;
}

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  explain();
});
for (const id of ["target", "against", "position"]) at(id)?.addEventListener("change", () => input && explain());
at("number").addEventListener("change", ({ target: { value } }) => {
  if (!value || value < 0 || value >= found.scores.length) return;
  at("target").append(make("option", { value }, labelOf(Number(value))));
  at("target").value = value;
  explain();
});
if (entry.type === "file") entry.addEventListener("change", () => run && explain());
for (const button of result.querySelectorAll("[data-show], [data-by]"))
  button.addEventListener("click", () => {
    if (button.dataset.show) view.name = button.dataset.show;
    else view.by = button.dataset.by;
    paint();
  });
const style = document.querySelector(".style"), root = document.documentElement;
const dark = () => (root.dataset.style ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const named = () => (style.textContent = dark() ? "light style" : "dark style");
style.hidden = false;
style.addEventListener("click", () => ((root.dataset.style = dark() ? "light" : "dark"), named()));
named();

export const ready = start().catch(fail);
