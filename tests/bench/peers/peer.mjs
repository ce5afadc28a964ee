// peer.mjs CLIENT WORKLOAD URL ROWS DIM - one of the clients that Moonpool is compared with, on one
// workload of `scripts/bench peers`. What it has decoded is checked by samples; exit status 1 when wrong.
import { createRequire } from "node:module";
const require = createRequire(process.env.MOONPOOL_NPM + "/package.json");

const [client, workload, url, rowsText, dimText] = process.argv.slice(2);
const rows = Number(rowsText), dim = Number(dimText);
const BATCH = 128, CONNECTIONS = 64;
const encoding = workload === "base64" ? "base64" : "float";

// Runs job(0) .. job(n - 1), so many at once.
async function many(n, job) {
  let next = 0;
  const worker = async () => { while (next < n) await job(next++); };
  await Promise.all(Array.from({ length: Math.min(CONNECTIONS, n) }, worker));
}

function fail(why) { console.error("peer:", why); process.exit(1); }

const texts = (from) => Array.from({ length: BATCH }, (_, i) => "text " + (from + i));

function store(out, batch, items) {
  for (const item of items) {
    const row = typeof item.embedding === "string"
      ? new Float32Array(new Uint8Array(Buffer.from(item.embedding, "base64")).buffer)
      : item.embedding;
    out.set(row, (batch * BATCH + item.index) * dim);
  }
}

function check(out) {
  for (const r of [0, 1, (rows >> 1) + 5, rows - 1]) {
    const same = r % BATCH; // every reply is the same
    for (const d of [0, 7, dim - 1]) {
      const v = out[r * dim + d];
      if (!(Math.abs(v) < 0.1) || v !== out[same * dim + d]) fail(`row ${r}, column ${d}: ${v}`);
    }
  }
}

const vectors = {
  async undici() {
    const { Pool } = require("undici");
    const pool = new Pool(url, { connections: CONNECTIONS });
    const out = new Float32Array(rows * dim);
    await many(rows / BATCH, async (b) => {
      const { body } = await pool.request({
        path: "/v1/embeddings", method: "POST", headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "m", input: texts(b * BATCH), encoding_format: encoding }),
      });
      store(out, b, (await body.json()).data);
    });
    check(out);
  },
  async openai() {
    const OpenAI = require("openai").default ?? require("openai");
    const api = new OpenAI({ apiKey: "k", baseURL: url + "/v1", maxRetries: 0 });
    const out = new Float32Array(rows * dim);
    await many(rows / BATCH, async (b) => {
      const res = await api.embeddings.create({ model: "m", input: texts(b * BATCH), encoding_format: encoding });
      store(out, b, res.data);
    });
    check(out);
  },
  async baseten() {
    const { PerformanceClient, RequestProcessingPreference } = require("@basetenlabs/performance-client-linux-x64-gnu");
    const api = new PerformanceClient(url, "k", 1);
    const input = Array.from({ length: rows }, (_, i) => "text " + i);
    const how = new RequestProcessingPreference(CONNECTIONS, BATCH);
    const res = await api.embed(input, "m", encoding, undefined, undefined, how);
    const out = new Float32Array(rows * dim);
    res.data.forEach((item, i) => out.set(item.embedding, i * dim));
    check(out);
  },
};

const small = {
  async undici() {
    const { Pool } = require("undici");
    const pool = new Pool(url, { connections: CONNECTIONS });
    let good = 0;
    await many(rows, async () => {
      const { body } = await pool.request({
        path: "/v1", method: "POST", headers: { "content-type": "application/json" },
        body: JSON.stringify({ input: "The quick brown fox", id: 1234567 }),
      });
      if ((await body.json()).ok) good++;
    });
    if (good !== rows) fail(`${good} of ${rows}`);
  },
  async baseten() {
    const { PerformanceClient, RequestProcessingPreference } = require("@basetenlabs/performance-client-linux-x64-gnu");
    const api = new PerformanceClient(url, "k", 1);
    const payloads = Array.from({ length: rows }, () => ({ input: "The quick brown fox", id: 1234567 }));
    const how = new RequestProcessingPreference(CONNECTIONS, BATCH);
    const res = await api.batchPost("/v1", payloads, how);
    const list = res.data ?? res;
    if (list.length !== rows || !list.every((x) => (x.ok ?? x?.data?.ok) === true)) fail("a reply is wrong");
  },
};

await (workload === "small" ? small : vectors)[client]();
process.exit(0);
