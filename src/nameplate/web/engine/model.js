/** The model of a site, loaded: `site.json`, both networks as sessions of ONNX Runtime Web, classifier and known cars. */

import { tensors } from "./bundle.js";

const SETTINGS = { executionProviders: ["wasm"], graphOptimizationLevel: "disabled" }; // the graphs are optimised already
/** The smallest network, of one Identity: with its session ONNX Runtime starts, while the files are still on their way. */
const SMALLEST = Uint8Array.from(atob("CAgSADo3ChAKAXgSAXkiCElkZW50aXR5EgFuWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="), (each) => each.charCodeAt(0));

/** What `pipeline.identify` takes as its model. `read(path)` promises the bytes of a file of the site, an ArrayBuffer. */
export async function loadModel(site, ort, read) {
  const has = (path) => site.files.some((file) => file.path === path);
  const start = ort.InferenceSession.create(SMALLEST, SETTINGS);
  const session = async (graph, externalData) => ort.InferenceSession.create(await read(graph), { ...SETTINGS, externalData });
  const weights = read("model/backbone.safetensors").then((file) => external(tensors(file)));
  const [detector, backbone, head, known] = await Promise.all([
    has("model/detector.onnx") ? session("model/detector.onnx") : null,
    weights.then((data) => session("model/backbone.onnx", data)),
    read("model/head.safetensors").then(tensors),
    has("model/known.safetensors") ? read("model/known.safetensors").then(tensors) : null,
    start,
  ]);
  const tensor = ({ height, width, data }) => new ort.Tensor("uint8", data, [1, height, width, 3]);
  return { manifest: site.model, rules: site.rules, head: { weight: head.weight, bias: head.bias }, known, embed: embedder(backbone, tensor), look: detector && viewer(detector, tensor) };
}

/** The weights that the graph refers to, in float32: each tensor of the file, times the factors of its rows if there are any. */
function external(weights) {
  const names = Object.keys(weights).filter((name) => !name.endsWith(".scale"));
  return names.map((path) => {
    const { data } = weights[path];
    const factors = weights[`${path}.scale`]?.data ?? [];
    const length = data.length / factors.length;
    for (let row = 0, at = 0; row < factors.length; row++) for (const end = at + length; at < end; at++) data[at] *= factors[row];
    return { path, data: new Uint8Array(data.buffer) };
  });
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
