// What all peers in JavaScript share: the words of the command line, the job, and what is done with it.

import { Pool } from "undici";

/** As many connections to the endpoint as Caudal has. */
const CONNECTIONS = 64;

export const [settings, command, argument] = process.argv.slice(2);
export const best = settings === "best";

/** 200 bytes as JSON. */
export function job(n) {
  const payload = { payment_id: `p-${String(n).padStart(10, "0")}`, amount: 1999, note: "" };
  payload.note = "x".repeat(200 - JSON.stringify(payload).length);
  return payload;
}

export async function inBatches(count, size, put) {
  for (let from = 0; from < count; from += size) {
    await put(Array.from({ length: Math.min(size, count - from) }, (_, i) => job(from + i)));
  }
}

/** One POST a job over kept connections, or nothing. */
export function handler(url) {
  if (!url) return async () => {};
  const { origin, pathname } = new URL(url);
  const pool = new Pool(origin, { connections: CONNECTIONS });
  const headers = { "content-type": "application/json" };
  return async (payload, key) => {
    const answer = await pool.request({
      path: pathname,
      method: "POST",
      headers: { ...headers, "idempotency-key": String(key) },
      body: JSON.stringify(payload),
    });
    await answer.body.dump();
    if (answer.statusCode >= 300) throw new Error(`answered ${answer.statusCode}`);
  };
}
