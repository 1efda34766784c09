// pg-boss 12. A job that is done has state 'completed'.
//
// default: work() with no options, which is one job every two seconds.
// best: https://github.com/timgit/pg-boss/blob/12.37.0/docs/api/workers.md: batches, a result for each job of a batch, several
// workers, and no pause while batches come back full.

import { PgBoss } from "pg-boss";
import { argument, best, command, handler, inBatches } from "./job.mjs";

const QUEUE = "confirm";
const boss = new PgBoss(process.env.DATABASE_URL);
boss.on("error", console.error);
await boss.start();

if (command === "enqueue") {
  await boss.createQueue(QUEUE);
  await inBatches(Number(argument), 5_000, (jobs) => boss.insert(QUEUE, jobs.map((data) => ({ data }))));
  await boss.stop();
} else {
  const post = handler(argument);
  if (best) {
    const options = {
      batchSize: 500,
      localConcurrency: 2,
      burstWhenBatchFull: true,
      pollingIntervalSeconds: 0.5,
      perJobResults: true,
    };
    await boss.work(QUEUE, options, (jobs) =>
      Promise.all(
        jobs.map(({ id, data }) =>
          post(data, id).then(
            () => ({ id, status: "completed" }),
            () => ({ id, status: "failed" }),
          ),
        ),
      ),
    );
  } else {
    await boss.work(QUEUE, async ([job]) => post(job.data, job.id));
  }
}
