// Texts: tokens for the model, and the words that they are of.
import { Refusal, load, tensor } from "./run.js";

export async function openText(facts) {
  const tokenizer = await globalThis.tokenizers.Tokenizer.fromJSON(await load("tokenizer.json", "arrayBuffer"));
  const encode = (text) => Array.from(tokenizer.encode(text));
  for (const [text, ids] of facts.probes)
    if (String(encode(text)) !== String(ids))
      throw new Refusal("The tokenizer does not work in this browser as it does in Python, so that nothing is explained.");
  return { read: (text) => read(facts, encode, (id) => name(tokenizer, id), text), nameOf: (id) => name(tokenizer, id) };
}

/** A token alone: decoded if that gives characters, else its name in the vocabulary. */
function name(tokenizer, id) {
  const decoded = tokenizer.decode(Int32Array.of(id));
  return !decoded || decoded.includes("\ufffd") ? tokenizer.idToToken(id) : decoded;
}

function read(facts, encode, nameOf, text) {
  if (!text.trim()) throw new Refusal("There is no text.");
  if (text.includes("\0")) throw new Refusal("The text has a character NUL, which is no text.");
  if (text.isWellFormed?.() === false) throw new Refusal("The text has half of a character (a lone surrogate).");
  const own = encode(text);
  if (!own.length) throw new Refusal("The tokenizer finds no tokens in the text.");
  // Tokens that the text itself begins with are not put there again.
  const twice = facts.before.length > 0 && facts.before.every((id, k) => own[k] === id);
  const [before, after] = [twice ? [] : facts.before, facts.after];
  const [typesBefore, [type], typesAfter] = facts.types;
  let ids = [...before, ...own, ...after];
  let types = [...(twice ? [] : typesBefore), ...own.map(() => type), ...typesAfter];
  let mask = ids.map(() => 1);
  const most = Math.min(facts.limit ?? Infinity, facts.length ?? Infinity);
  if (ids.length > most)
    throw new Refusal(`The text has ${ids.length} tokens, and the model reads at most ${most}: shorten it.`);
  const names = [...before.map(nameOf), ...own.map(nameOf), ...after.map(nameOf)];
  const missing = facts.length === null ? 0 : facts.length - ids.length;
  const padded = (row, entry) => {
    const rest = Array(missing).fill(entry);
    return facts.left ? [...rest, ...row] : [...row, ...rest];
  };
  const start = facts.left ? missing : 0;
  const parts = words(encode, text, own);
  const begin = start + before.length;
  const units = (parts ?? own.map((id, k) => [nameOf(id), k, 1])).map(([part, first, count]) => ({
    text: part, alone: !parts, units: Array.from({ length: count }, (_, k) => begin + first + k),
  }));
  const special = (k) => ({ text: names[k], units: [start + k], special: true });
  const count = ids.length;
  const flow = [
    ...before.map((_, k) => special(k)), ...units, ...after.map((_, k) => special(before.length + own.length + k)),
  ];
  [ids, types, mask] = [padded(ids, facts.pad), padded(types, 0), padded(mask, 0)];
  let seen = 0;
  const counted = mask.map((kept) => Math.max((seen += kept) - 1, 0));
  const arrays = {
    ids, types, mask, padding: mask.map((kept) => 1 - kept), unused: ids.map(() => 0),
    positions: mask[0] ? ids.map((_, k) => k) : counted,
  };
  const feeds = Object.fromEntries(facts.inputs.map((each) => [
    each.name, tensor(each.type, arrays[each.receives], each.axes === 1 ? [ids.length] : [1, ids.length]),
  ]));
  const unknown = ids.map((id) => id === facts.unknown);
  return { feeds, last: start + count - 1, flow, names: padded(names, "[padding]"), unknown, first: start, count };
}

const segments = (text) => Intl.Segmenter
  ? Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), ({ segment }) => segment)
  : text.split(/(?<=\s)(?=\S)|(?<=\S)(?=\s)/);

/**
 * Parts of the text and their tokens, as [text, first token, number of tokens].
 *
 * A part is a word, with the blanks before it, whose tokens alone are those in the whole text. Words
 * that are not are joined with the word before; tokens whose text stays open are parts themselves.
 */
export function words(encode, text, ids) {
  const parts = [];
  for (const segment of segments(text))
    if (parts.length && !parts.at(-1).trim()) parts[parts.length - 1] += segment;
    else parts.push(segment);
  const found = [];
  let at = 0;
  const fits = (part) =>
    [part, part.trimStart()].map(encode).find((own) => own.every((id, k) => ids[at + k] === id));
  for (let k = 0; k < parts.length; ) {
    const own = fits(parts[k]);
    if (own && (k < parts.length - 1 || at + own.length === ids.length)) {
      found.push([parts[k], at, own.length]);
      at += own.length;
      k += 1;
    } else if (k > 0) {
      at = found.pop()[1];
      parts.splice(k - 1, 2, parts[k - 1] + parts[k]);
      k -= 1;
    } else if (parts.length > 1) parts.splice(0, 2, parts[0] + parts[1]);
    else return null;
  }
  return found;
}
