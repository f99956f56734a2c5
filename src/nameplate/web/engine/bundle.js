/** Reading a bundle: bundle.json, and the tensors of its safetensors files as Float32Array. */

/** The tensors of a safetensors file, F32 or F16, by name: {shape, data}. */
export function tensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const found = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = buffer.slice(8 + length + start, 8 + length + end);
    if (dtype !== "F32" && dtype !== "F16") throw new Error(`${name} has numbers of type ${dtype}; F32 and F16 can be read`);
    found[name] = { shape, data: dtype === "F32" ? new Float32Array(bytes) : halves(new Uint16Array(bytes)) };
  }
  return found;
}

let table = null; // float16 → float32

function halves(bits) {
  table ??= Float32Array.from({ length: 2 ** 16 }, (_, each) => half(each));
  const found = new Float32Array(bits.length);
  for (let each = 0; each < bits.length; each++) found[each] = table[bits[each]];
  return found;
}

function half(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 31 ? (fraction ? Number.NaN : Infinity) : exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
}
