// Well-known clients, as they are on npm, against the gateway and against the service behind it: the same
// vectors. node check.mjs GATEWAY DIRECT PACKAGES; prints a line a check, exits 1 when one fails.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [gateway, direct, packages] = process.argv.slice(2);
const require = createRequire(path.join(packages, "x.js"));
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const model = "local-demo";
const texts = ["a first text", "ünïcode \u{1F600} \"quoted\"", "line\nbreak", "x"];
let failed = 0;

const rounded = (row) => JSON.stringify([...row].map((v) => Math.fround(v)));
const same = (a, b) => rounded(a) === rounded(b);

async function check(what, fn) {
  try {
    const why = await fn();
    if (why) throw new Error(why);
    console.log(`ok ${what}`);
  } catch (err) {
    failed++;
    console.log(`not ok ${what}: ${err?.stack ?? err}`);
  }
}

// fn must be refused, with an error that has this status.
async function refused(status, fn) {
  try {
    await fn();
  } catch (err) {
    const got = err.status ?? err.statusCode ?? err.status_code;
    return got === status && String(err.message).length > 0 ? undefined : `status ${got}: ${err}`;
  }
  return "was not refused";
}

async function openai() {
  const { default: OpenAI } = await load("openai");
  const at = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test-key", maxRetries: 0 });
  const [g, d] = [at(gateway), at(direct)];
  for (const encoding_format of [undefined, "float", "base64"]) {
    for (const input of [texts[0], texts]) {
      await check(`openai ${encoding_format ?? "default"} ${Array.isArray(input) ? "list" : "one"}`, async () => {
        const [a, b] = await Promise.all([g, d].map((c) => c.embeddings.create({ model, input, encoding_format })));
        if (a.data.length !== b.data.length || a.object !== "list") return "rows";
        for (const i in a.data) {
          if (a.data[i].index !== Number(i)) return `index of row ${i}`;
          const x = a.data[i].embedding, y = b.data[i].embedding;
          if (typeof x === "string" ? x !== y : !same(x, y)) return `row ${i} differs`;
        }
        if (a.usage.total_tokens !== b.usage.total_tokens) return "usage";
      });
    }
  }
  await check("openai token ids", async () => {
    const input = [[1, 2, 3], [7]];
    const [a, b] = await Promise.all([g, d].map((c) => c.embeddings.create({ model, input })));
    if (!a.data.every((row, i) => same(row.embedding, b.data[i].embedding))) return "rows differ";
  });
  await check("openai dimensions, user", async () => {
    const options = { model, input: texts, dimensions: 8, user: "somebody" };
    const [a, b] = await Promise.all([g, d].map((c) => c.embeddings.create(options)));
    if (!a.data.every((row, i) => row.embedding.length === 8 && same(row.embedding, b.data[i].embedding))) return "rows differ";
  });
  await check("openai models", async () => {
    const page = await g.models.list();
    if (page.data.length === 0) return "none";
    const one = await g.models.retrieve(page.data[0].id);
    if (one.id !== page.data[0].id) return "another";
  });
  await check("openai error", () => refused(400, () => g.embeddings.create({ model, input: [] })));
  await check("openai error of the service", () => refused(400, () => g.embeddings.create({ model, input: ["x", ""] })));
  await check("openai error has type, request id and headers", async () => {
    const err = await g.embeddings.create({ model, input: [] }).then(() => null, (e) => e);
    if (err.type !== "invalid_request_error" || err.param !== "input" || !err.requestID) return `${err.type} ${err.requestID}`;
  });
  await check("openai cancellation", async () => {
    const stop = new AbortController();
    const asked = g.embeddings.create({ model: "slow", input: texts }, { signal: stop.signal });
    setTimeout(() => stop.abort(), 50);
    const err = await asked.then(() => null, (e) => e);
    if (!/abort/i.test(String(err))) return `ended with ${err}`;
  });
  await check("openai 200 at once", async () => {
    const all = await Promise.all(Array.from({ length: 200 }, (_, i) => g.embeddings.create({ model, input: `text ${i}` })));
    const want = await d.embeddings.create({ model, input: Array.from({ length: 200 }, (_, i) => `text ${i}`) });
    const wrong = all.findIndex((r, i) => r.data.length !== 1 || !same(r.data[0].embedding, want.data[i].embedding));
    if (wrong >= 0) return `text ${wrong}`;
  });
}

async function cohere() {
  const { CohereClientV2 } = await load("cohere-ai");
  const at = (url) => new CohereClientV2({ environment: url, token: "co-test-key" });
  const [g, d] = [at(gateway), at(direct)];
  await check("cohere embed", async () => {
    const options = { model, texts, inputType: "search_document", embeddingTypes: ["float"] };
    const [a, b] = await Promise.all([g, d].map((c) => c.embed(options)));
    if (a.embeddings.float.length !== texts.length) return "rows";
    if (!a.embeddings.float.every((row, i) => same(row, b.embeddings.float[i]))) return "rows differ";
    if (typeof a.id !== "string") return "id";
  });
  await check("cohere embed base64", async () => {
    const a = await g.embed({ model, texts, inputType: "search_query", embeddingTypes: ["base64"] });
    const b = await g.embed({ model, texts, inputType: "search_query", embeddingTypes: ["float"] });
    const read = (t) => new Float32Array(new Uint8Array(Buffer.from(t, "base64")).buffer);
    if (!a.embeddings.base64.every((row, i) => same(read(row), b.embeddings.float[i]))) return "rows differ";
  });
  await check("cohere rerank", async () => {
    const options = { model, query: "pears", documents: ["apples", "pears", "the moon"], topN: 2 };
    const [a, b] = await Promise.all([g, d].map((c) => c.rerank(options)));
    if (a.results.length !== 2) return "results";
    if (JSON.stringify(a.results.map((r) => r.index)) !== JSON.stringify(b.results.map((r) => r.index))) return "order";
  });
  await check("cohere error", () => refused(400, () => g.embed(
    { model, texts: [], inputType: "search_document", embeddingTypes: ["float"] }, { maxRetries: 0 })));
}

async function ollama() {
  const { Ollama } = await load("ollama");
  const { default: OpenAI } = await load("openai");
  const g = new Ollama({ host: gateway });
  const d = new OpenAI({ baseURL: `${direct}/v1`, apiKey: "x" });
  for (const input of [texts[0], texts]) {
    await check(`ollama embed ${Array.isArray(input) ? "list" : "one"}`, async () => {
      const [a, b] = await Promise.all([g.embed({ model, input }), d.embeddings.create({ model, input })]);
      if (a.embeddings.length !== b.data.length || a.model !== model) return "rows";
      if (!a.embeddings.every((row, i) => same(row, b.data[i].embedding))) return "rows differ";
    });
  }
  await check("ollama embeddings", async () => {
    const [a, b] = await Promise.all([g.embeddings({ model, prompt: texts[1] }), d.embeddings.create({ model, input: texts[1] })]);
    if (!same(a.embedding, b.data[0].embedding)) return "differs";
  });
  await check("ollama list", async () => ((await g.list()).models.length > 0 ? undefined : "none"));
  await check("ollama error", () => refused(400, () => g.embed({ model, input: [] })));
}

async function baseten() {
  const { PerformanceClient } = require("@basetenlabs/performance-client-linux-x64-gnu");
  const { default: OpenAI } = await load("openai");
  const many = Array.from({ length: 100 }, (_, i) => `text ${i}`);
  const g = new PerformanceClient(gateway, "key");
  const d = new OpenAI({ baseURL: `${direct}/v1`, apiKey: "x" });
  await check("baseten embed", async () => {
    const a = await g.embed(many, model);
    const b = await d.embeddings.create({ model, input: many });
    const rows = a.data.map((row) => row.embedding);
    if (rows.length !== many.length) return `rows ${rows.length}`;
    if (!rows.every((row, i) => same(row, b.data[i].embedding))) return "rows differ";
  });
  await check("baseten rerank", async () => {
    const r = await g.rerank("pears", ["apples", "pears", "the moon"], false, null, true);
    const top = [...r.data].sort((x, y) => y.score - x.score)[0];
    if (r.data.length !== 3 || top.text !== "pears") return JSON.stringify(r);
  });
  await check("baseten classify", async () => {
    const r = await g.classify(["good", "bad"]);
    if (r.data.length !== 2) return JSON.stringify(r);
  });
  await check("baseten error", async () => {
    const err = await g.embed(["x", ""], model).then(() => null, (e) => e);
    return /400/.test(String(err)) ? undefined : `ended with ${err}`;
  });
}

for (const client of [openai, cohere, ollama, baseten]) {
  try {
    await client();
  } catch (err) {
    failed++;
    console.log(`not ok ${client.name}: ${err?.stack ?? err}`);
  }
}
process.exit(failed > 0 ? 1 : 0);
