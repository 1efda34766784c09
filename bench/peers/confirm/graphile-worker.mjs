// graphile-worker 0.18. A job that is done is deleted.
//
// best: the settings of https://worker.graphile.org/docs/performance ("The above stats were achieved with this configuration").

import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { argument, best, command, handler, inBatches } from "./job.mjs";

const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});
const worker = best
  ? { concurrentJobs: 24, maxPoolSize: 25, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
  : {};

if (command === "enqueue") {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  await inBatches(Number(argument), 10_000, (jobs) =>
    utils.addJobs(jobs.map((payload) => ({ identifier: "confirm", payload }))),
  );
  await utils.release();
} else {
  const post = handler(argument);
  const runner = await run({
    logger,
    preset: { worker: { connectionString, ...worker } },
    taskList: { confirm: (payload, helpers) => post(payload, helpers.job.id) },
  });
  await runner.promise;
}
