/** Evenly spaced numbers, rounded as in PyTorch. */
const float32 = Math.fround;

/** `torch.linspace` in float32 on a CPU with AVX2: from the nearer end, sixteen numbers at a time as two times eight. */
export function torchLinspace(first: number, last: number, count: number): Float64Array {
  const [lanes, block] = [8, 16];
  const [start, end] = [float32(first), float32(last)];
  if (count === 1) return Float64Array.of(start);
  const step = float32(float32(end - start) / (count - 1));
  const at = (i: number) =>
    float32(i < Math.trunc(count / 2) ? start + step * i : end - step * (count - i - 1));
  return Float64Array.from({ length: count }, (_, i) => {
    const lane = i < count - (count % block) ? i % lanes : 0;
    return float32(at(i - lane) + float32(step * lane));
  });
}
