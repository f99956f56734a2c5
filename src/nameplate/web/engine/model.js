/** The model of a site, loaded: `site.json`, both networks as sessions of ONNX Runtime Web, classifier and known cars. */

import { tensors } from "./bundle.js";

/** What `pipeline.identify` takes as its model. `read(path)` promises the bytes of a file of the site, an ArrayBuffer. */
export async function loadModel(site, ort, read) {
  const has = (path) => site.files.some((file) => file.path === path);
  const session = async (path) => ort.InferenceSession.create(await read(path), { executionProviders: ["wasm"] });
  const [detector, backbone, head, known] = await Promise.all([
    has("model/detector.onnx") ? session("model/detector.onnx") : null,
    session("model/backbone.onnx"),
    read("model/head.safetensors").then(tensors),
    has("model/known.safetensors") ? read("model/known.safetensors").then(tensors) : null,
  ]);
  const tensor = ({ height, width, data }) => new ort.Tensor("uint8", data, [1, height, width, 3]);
  return { manifest: site.model, rules: site.rules, head: { weight: head.weight, bias: head.bias }, known, embed: embedder(backbone, tensor), look: detector && viewer(detector, tensor) };
}

/** Only one run at a time: the sessions share the worker's thread. */
const embedder = (backbone, tensor) => async (input) => {
  const [entry, output] = [backbone.inputNames[0], backbone.outputNames[0]];
  return (await backbone.run({ [entry]: tensor(input) }, [output]))[output].data;
};

const viewer = (detector, tensor) => async (view) => {
  const { boxes, scores } = await detector.run({ input: tensor(view) });
  return { boxes: boxes.data, scores: scores.data };
};
