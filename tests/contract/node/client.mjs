// A client in another language: it knows an address, a key and sluice/descriptors.binpb, and nothing else of the suite.
//
//   node client.mjs --descriptors FILE --address HOST:PORT --project NAME --dataset NAME --rows FILE
//                   [--train] [--base VERSION] [--model NAME] [--endpoint NAME] [--max-steps N]
//
// The key comes from SLUICE_API_KEY. It uploads the rows and lists the datasets; with --train it trains on them and
// watches the job to its end; --base is a whole resource name. It prints one JSON object:
// {dataset, version, rows, datasets, job?, states?, model_version?}, `states` each time the job had another one.

import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { crc32 } from "./crc32.mjs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const CHUNK = 1024 * 1024;
const SHAPE = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };

const { values: options } = parseArgs({
  options: {
    descriptors: { type: "string" },
    address: { type: "string" },
    project: { type: "string", default: "default" },
    dataset: { type: "string", default: "from-node" },
    rows: { type: "string" },
    train: { type: "boolean", default: false },
    base: { type: "string", default: "" },
    model: { type: "string", default: "from-node" },
    endpoint: { type: "string", default: "" },
    "max-steps": { type: "string" },
  },
});

const contract = grpc.loadPackageDefinition(
  loader.loadFileDescriptorSetFromBuffer(readFileSync(options.descriptors), SHAPE),
).sluice;
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.SLUICE_API_KEY}`);

function connect(service) {
  return new service(options.address, grpc.credentials.createInsecure());
}

function call(stub, method, request) {
  return new Promise((resolve, reject) => {
    stub[method](request, metadata, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

// Resolves with the last snapshot of a Watch rpc that the server ends, or that `over` accepts.
function watch(stub, method, name, field, over) {
  return new Promise((resolve, reject) => {
    const states = [];
    const stream = stub[method]({ name }, metadata);
    stream.on("data", (response) => {
      const seen = response[field];
      if (seen.state !== states.at(-1)) states.push(seen.state);
      if (over(seen.state)) resolve({ last: seen, states });
    });
    stream.on("error", reject);
    stream.on("end", () => reject(new Error(`${method} ended at ${states.at(-1)}`)));
  });
}

function send(stub, name, content) {
  return new Promise((resolve, reject) => {
    const stream = stub.WriteUpload(metadata, (error, response) => (error ? reject(error) : resolve(response)));
    for (let offset = 0; offset < content.length; offset += CHUNK) {
      const data = content.subarray(offset, offset + CHUNK);
      stream.write({ name, offset, data, crc32: crc32(data) });
    }
    stream.end();
  });
}

async function upload(parent, content) {
  const datasets = connect(contract.dataset.v1.DatasetService);
  const uploads = connect(contract.dataset.v1.UploadService);
  const wanted = { display_name: options.dataset, task_type: "sft" };
  const { dataset } = await call(datasets, "CreateDataset", { parent, dataset: wanted, request_id: randomUUID() });
  const { upload: opened } = await call(uploads, "CreateUpload", {
    parent: dataset.name,
    file_name: basename(options.rows),
    size_bytes: content.length,
    digest: `sha256:${createHash("sha256").update(content).digest("hex")}`,
    request_id: randomUUID(),
  });
  await send(uploads, opened.name, content);
  await call(uploads, "CommitUpload", { name: opened.name });
  const over = (state) => ["UPLOAD_STATE_COMMITTED", "UPLOAD_STATE_FAILED", "UPLOAD_STATE_EXPIRED"].includes(state);
  const { last } = await watch(uploads, "WatchUpload", opened.name, "upload", over);
  if (last.state !== "UPLOAD_STATE_COMMITTED") throw new Error(last.failure?.message ?? last.state);
  const { datasets: listed } = await call(datasets, "ListDatasets", { parent });
  return { dataset: dataset.name, version: last.dataset_version, rows: last.rows_checked, datasets: listed.map((each) => each.name) };
}

async function train(parent, version) {
  const jobs = connect(contract.trainer.v1.TrainingJobService);
  const optimization = options["max-steps"] ? { max_steps: Number(options["max-steps"]) } : {};
  const spec = {
    task_type: "sft",
    dataset_version: version,
    base_model_version: options.base,
    model: options.model,
    endpoint: options.endpoint,
    sft: {},
    optimization,
  };
  const wanted = { display_name: "from node", spec };
  const { training_job: job } = await call(jobs, "CreateTrainingJob", { parent, training_job: wanted, request_id: randomUUID() });
  const over = (state) => /_(SUCCEEDED|FAILED|CANCELLED|EXPIRED)$/.test(state);
  const { last, states } = await watch(jobs, "WatchTrainingJob", job.name, "training_job", over);
  if (last.state !== "JOB_STATE_SUCCEEDED") throw new Error(last.failure?.message ?? last.state);
  return { job: job.name, states, model_version: (await versionOf(parent, job.name)).name };
}

// The version that the registry makes of a job, which it does by itself once it has heard of its success.
async function versionOf(parent, job) {
  const versions = connect(contract.registry.v1.ModelVersionService);
  const request = { parent: `${parent}/models/-`, filter: `training_job = "${job}"` };
  for (let tries = 0; tries < 300; tries += 1) {
    const { model_versions: found } = await call(versions, "ListModelVersions", request);
    if (found.length) return found[0];
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`no version was made of ${job} within 30 s`);
}

try {
  const parent = `projects/${options.project}`;
  const told = await upload(parent, readFileSync(options.rows));
  if (options.train) Object.assign(told, await train(parent, told.version));
  console.log(JSON.stringify(told));
  process.exit(0);
} catch (error) {
  console.error(`error: ${error.details || error.message}`);
  process.exit(1);
}
