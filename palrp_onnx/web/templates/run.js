// The model: one run gives its answer and the relevance of one target.
import * as ort from "./vendor/ort.wasm.min.mjs";

// Threads would need headers that most servers do not send.
ort.env.wasm.numThreads = 1;

/** Something that the visitor can understand, and mostly change. */
export class Refusal extends Error {}

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int32: Int32Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};
const MAPS = ["content", "position", "total", "score"];
/** Seeds to try in half precision, as in Python: relevance vanishes in long inputs, and may overflow. */
const seeds = (feeds) => {
  const longest = Math.max(...Object.values(feeds).flatMap(({ dims }) => dims));
  return [256 * 2 ** Math.min(Math.floor(Math.log2(Math.max(longest / 128, 1))), 6), 256, 16, 0.25];
};

export async function load(name, as) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Refusal(`The file ${name} of this page cannot be loaded (${answer.status}).`);
  return answer[as]();
}

export function tensor(type, numbers, dims) {
  const data = type === "int64" ? BigInt64Array.from(numbers, BigInt) : ARRAYS[type].from(numbers);
  return new ort.Tensor(type, data, dims);
}

export async function openModel(facts) {
  const externalData = facts.external.map((path) => ({ path, data: path }));
  const session = await ort.InferenceSession.create("model.onnx", { externalData, logSeverityLevel: 3 });
  return (input, choice) => explain(session, facts, input, choice);
}

/** The explanation of one input: `choice` has numbers, −1 for what follows from the model. */
async function explain(session, facts, { feeds, last }, choice) {
  const defaults = {
    target: tensor("int64", [choice.target], [1]),
    target_against: tensor("int64", [choice.against], [1]),
    target_position: tensor("int64", [choice.position], [1]),
    target_vector: tensor("float32", [0], [1, 1]),
  };
  const given = { ...feeds };
  for (const name of facts.required) if (name in defaults) given[name] = defaults[name];
  const wanted = [facts.output, "relevance_ledger", ...MAPS.map((name) => `relevance_${name}`)];
  const outputs = wanted.filter((name) => session.outputNames.includes(name));
  for (const scale of facts.required.includes("seed_scale") ? seeds(feeds) : [1]) {
    if (facts.required.includes("seed_scale")) given.seed_scale = tensor("float32", [scale], [1]);
    const values = await session.run(given, outputs);
    if (["total", "score"].every((name) => values[`relevance_${name}`].data.every(Number.isFinite)))
      return told(facts, values, choice, last);
  }
  throw new Refusal("The relevance of this input is not finite: nothing is shown.");
}

function told(facts, values, choice, last) {
  const output = values[facts.output];
  const size = output.dims.at(-1);
  const places = facts.axes === 3 ? output.dims.at(-2) : 1;
  const position = facts.axes < 3 ? 0 : choice.position < 0 ? Math.min(last, places - 1) : choice.position;
  const scores = Array.from(output.data.slice(position * size, (position + 1) * size));
  const best = scores.reduce((found, value, k) => (value > scores[found] ? k : found), 0);
  const target = choice.target < 0 ? best : choice.target;
  const value = scores[target] - (choice.against < 0 ? 0 : scores[choice.against]);
  const maps = Object.fromEntries(MAPS.map((name) => [name, Array.from(values[`relevance_${name}`].data)]));
  const entries = values.relevance_ledger ? Array.from(values.relevance_ledger.data) : [];
  const ledger = entries.map((amount, k) => [facts.ledger[k], amount]);
  return { scores, best, target, against: choice.against, position, value, maps, ledger };
}
