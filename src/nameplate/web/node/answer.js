/** Answers photos with a site's engine in Node.js: `export --web` compares the answers with the bundle's.

It lies in a copy of the site. stdin has photo after photo: height and width, uint32 little-endian, then RGB, three
bytes a pixel; stdout gets a line of JSON for each: the row of /v1/identify, with all nameplates in `top`. */

import { readFile } from "node:fs/promises";
import { loadModel } from "./engine/model.js";
import { identify } from "./engine/pipeline.js";
import * as ort from "./onnxruntime-web/ort.wasm.bundle.min.mjs";

async function read(path) {
  const bytes = await readFile(new URL(path, import.meta.url));
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

async function* photos(stream) {
  let [parts, held] = [[], 0];
  const take = (length) => {
    const all = Buffer.concat(parts);
    [parts, held] = [[all.subarray(length)], all.length - length];
    return all.subarray(0, length);
  };
  let size = null;
  for await (const part of stream) {
    parts.push(part);
    held += part.length;
    if (size === null && held >= 8) {
      const head = take(8);
      size = { height: head.readUInt32LE(0), width: head.readUInt32LE(4) };
    }
    if (size === null || held < 3 * size.height * size.width) continue;
    yield { ...size, data: new Uint8Array(take(3 * size.height * size.width)) };
    size = null;
  }
}

ort.env.wasm.numThreads = 1; // as in a browser, on most hosts
ort.env.wasm.wasmBinary = await read("onnxruntime-web/ort-wasm-simd-threaded.wasm");
const site = JSON.parse(await readFile(new URL("site.json", import.meta.url), "utf-8"));
const model = await loadModel(site, ort, read);
model.rules = { ...model.rules, TOP: site.model.nameplates.length };
for await (const photo of photos(process.stdin)) process.stdout.write(`${JSON.stringify(await identify("", photo, model))}\n`);
