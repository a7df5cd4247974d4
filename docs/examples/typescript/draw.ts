// Draws stroke by stroke and prints the closest photos after each: a client in TypeScript, typed from the contract.
//
//   npm install
//   npm run generate
//   npm run draw -- 127.0.0.1:50051 drawing.json
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import type { DrawRequest } from "./generated/mgrl/v1/DrawRequest.ts";
import type { DrawResponse__Output } from "./generated/mgrl/v1/DrawResponse.ts";
import type { Stroke } from "./generated/mgrl/v1/Stroke.ts";
import type { ProtoGrpcType } from "./generated/search.ts";

const [address = "127.0.0.1:50051", file = "drawing.json"] = process.argv.slice(2);

// The .proto files of the checkout, and google/rpc/status.proto of the package google-proto-files.
const includeDirs = ["../../../proto", "node_modules/google-proto-files"];
const contract = loadSync("mgrl/v1/search.proto", {
  // As in `npm run generate`: the types fit what is loaded.
  keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
  includeDirs: includeDirs.map((folder) => fileURLToPath(new URL(folder, import.meta.url))),
});
const { mgrl } = grpc.loadPackageDefinition(contract) as unknown as ProtoGrpcType;

type SavedStroke = { points: [number, number][]; width?: number; pressure?: number[] };

/** The strokes of a drawing as `mgrl demo` and the sketchpad save it. */
function strokesOf(path: string): Stroke[] {
  const drawing: { strokes: SavedStroke[] } = JSON.parse(readFileSync(path, "utf8"));
  return drawing.strokes.map(({ points, width, pressure }) => (
    { x: points.map(([x]) => x), y: points.map(([, y]) => y), width, pressure }
  ));
}

const client = new mgrl.v1.SketchSearchService(address, grpc.credentials.createInsecure());
const drawing = client.Draw();

/** Sends one message and waits for the answer that includes it; what the service refuses is thrown. */
async function answered(answers: AsyncIterator<DrawResponse__Output>, request: DrawRequest & { sequence: number }) {
  drawing.write(request);
  for (;;) {
    const { value, done } = await answers.next();
    if (done) throw new Error("the drawing ended without an answer");
    if (value.sequence < request.sequence) continue;
    if (value.error) throw new Error(value.error.message);
    return value.result;
  }
}

try {
  const answers: AsyncIterator<DrawResponse__Output> = drawing[Symbol.asyncIterator]();
  let sequence = 1;
  await answered(answers, { sequence, begin: { options: { k: 5 } } });
  for (const stroke of strokesOf(file)) {
    const result = await answered(answers, { sequence: ++sequence, strokes: { strokes: [stroke] } });
    const hits = result?.ranking?.hits ?? [];
    console.log(result?.strokes, hits.map((hit) => `${hit.photo_id} ${hit.distance.toFixed(3)}`).join("  "));
  }
  drawing.write({ sequence: ++sequence, finish: {} });
  drawing.end();
  while (!(await answers.next()).done); // what the service thinks of the end, too
  console.log("A ranking is a lead, not an identification.");
} catch (error) {
  console.error(`the drawing failed: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
} finally {
  drawing.on("error", () => {}); // of a drawing that is broken off
  drawing.cancel();
  client.close();
}
