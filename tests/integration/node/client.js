// Runs an explainer in Node.js: node client.js MODEL, feeds as JSON on stdin, outputs as JSON.
const ort = require("onnxruntime-node");

async function main() {
  const session = await ort.InferenceSession.create(process.argv[2]);
  const feeds = {};
  for (const [name, rows] of Object.entries(JSON.parse(require("fs").readFileSync(0, "utf8")))) {
    const flat = BigInt64Array.from(rows.flat().map(BigInt));
    const shape = Array.isArray(rows[0]) ? [rows.length, rows[0].length] : [rows.length];
    feeds[name] = new ort.Tensor("int64", flat, shape);
  }
  const outputs = await session.run(feeds);
  const plain = Object.entries(outputs).map(([name, t]) => [name, [t.dims, Array.from(t.data)]]);
  console.log(JSON.stringify(Object.fromEntries(plain)));
}

main();
