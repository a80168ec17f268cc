/**
 * The work of `train-work.ts` in jax-js, on its WebAssembly device: a jitted gradient and a jitted update.
 * With worker threads a jitted program frees nothing before it ends, and memory is limited to 4 GiB, so the gradient is
 * computed on pieces of the batch and averaged.
 */
import type { Array as JaxArray } from "@jax-js/jax";
import { type Contender, timed } from "../contender.ts";
import { readTensors, readWork } from "../tensor-file.ts";
import { trainParameters, type TrainWork } from "../train-work.ts";
import { type Jax, loadJax } from "./jax-js.ts";

type Tree = Record<string, JaxArray>;
type Batch = { x: JaxArray; t: JaxArray; y: JaxArray; target: JaxArray; positions: JaxArray };

const pieces = 4;

const contender: Contender = {
  async setup(workDir) {
    const work = readWork(workDir) as TrainWork;
    const { jax, settings } = await loadJax(work.threads);
    const np = jax.numpy;
    const tensors = readTensors(workDir);
    const load = (name: string): JaxArray => {
      const { shape, data } = tensors.get(name)!;
      return np.array(data, { shape: [...shape] });
    };
    const loadAll = (): Tree =>
      Object.fromEntries(trainParameters(work).map(([name]) => [name, load(name)]));
    const zeros = (): Tree =>
      Object.fromEntries(
        trainParameters(work).map(([name, shape]) => [name, np.zeros([...shape])]),
      );

    const [xs, ts, ys, targets] = [
      load("x"),
      load("t"),
      load("y").astype(np.int32),
      load("target"),
    ].map((array) => np.split(array, pieces)) as [JaxArray[], JaxArray[], JaxArray[], JaxArray[]];
    const positions = load("pos_embed");
    let state = { params: loadAll(), m: zeros(), v: zeros(), ema: loadAll() };
    let count = 0;
    const gradient = jax.jit(jax.valueAndGrad(lossOf(jax, work)));
    const sum = jax.jit((a: Tree, b: Tree) =>
      jax.tree.map((x: JaxArray, y: JaxArray) => x.add(y), a, b),
    );
    const update = jax.jit(updateOf(jax, work));

    return {
      settings,
      async step() {
        count++;
        const { ms, result } = await timed(async () => {
          let loss = 0;
          let grads: Tree | undefined;
          for (const [i, x] of xs.entries()) {
            const piece = { x, t: ts[i]!, y: ys[i]!, target: targets[i]!, positions };
            const [value, g] = gradient(jax.tree.ref(state.params), jax.tree.ref(piece)) as [
              JaxArray,
              Tree,
            ];
            grads = grads === undefined ? g : sum(grads, g);
            await jax.blockUntilReady(grads);
            loss += (await value.data())[0]! / pieces;
          }
          const corrections = [work.beta1, work.beta2].map((beta) => np.array(1 - beta ** count));
          const { params, m, v, ema } = state;
          state = update(params, grads!, m, v, ema, corrections[0]!, corrections[1]!);
          await jax.blockUntilReady(state);
          return loss;
        });
        return { ms, value: result };
      },
    };
  },
};

/** The loss of parameters and batch; every array is consumed, as jax-js requires. */
function lossOf({ numpy: np, nn }: Jax, work: TrainWork) {
  const { hidden, heads, tokens, frequencies, classes } = work;
  const rows = work.batch / pieces;

  return (p: Tree, batch: Batch): JaxArray => {
    const linear = (x: JaxArray, name: string): JaxArray =>
      np.matmul(x, p[`${name}.weight`]!.transpose()).add(p[`${name}.bias`]!);
    const norm = (h: JaxArray): JaxArray => {
      const centered = h.ref.sub(h.mean(-1, { keepdims: true }));
      const variance = np.square(centered.ref).mean(-1, { keepdims: true });
      return centered.div(np.sqrt(variance.add(1e-6)));
    };
    const modulated = (h: JaxArray, shift: JaxArray, scale: JaxArray): JaxArray =>
      norm(h).mul(scale.add(1)).add(shift);
    const parts = (c: JaxArray, name: string, count: number): JaxArray[] =>
      np.split(linear(c, name).reshape([rows, 1, count * hidden]), count, -1);
    const attention = (h: JaxArray, name: string): JaxArray => {
      const qkv = linear(h, `${name}.qkv`).reshape([rows, tokens, 3, heads, hidden / heads]);
      const [q, k, v] = np
        .split(qkv, 3, 2)
        .map((part) =>
          part.reshape([rows, tokens, heads, hidden / heads]).transpose([0, 2, 1, 3]),
        ) as [JaxArray, JaxArray, JaxArray];
      const scores = np.matmul(q.mul((hidden / heads) ** -0.5), k.transpose([0, 1, 3, 2]));
      const mixed = np.matmul(nn.softmax(scores, -1), v).transpose([0, 2, 1, 3]);
      return linear(mixed.reshape([rows, tokens, hidden]), `${name}.proj`);
    };

    const half = frequencies / 2;
    const angle = batch.t.reshape([rows, 1]).mul(
      np.exp(
        np
          .arange(half)
          .astype(np.float32)
          .mul(-Math.log(10000) / half),
      ),
    );
    const waves = np.concatenate([np.cos(angle.ref), np.sin(angle)], -1);
    const time = linear(nn.silu(linear(waves, "t_embedder.mlp.0")), "t_embedder.mlp.2");
    const label = np.matmul(nn.oneHot(batch.y, classes), p["y_embedder.embedding_table.weight"]!);
    const c = nn.silu(time.add(label));
    let h = linear(batch.x, "x_embedder.proj").add(batch.positions);
    for (let i = 0; i < work.depth; i++) {
      const block = `blocks.${i}`;
      const [shift1, scale1, gate1, shift2, scale2, gate2] = parts(
        c.ref,
        `${block}.adaLN_modulation.1`,
        6,
      ) as [JaxArray, JaxArray, JaxArray, JaxArray, JaxArray, JaxArray];
      h = h.ref.add(attention(modulated(h, shift1, scale1), `${block}.attn`).mul(gate1));
      const inner = nn.gelu(linear(modulated(h.ref, shift2, scale2), `${block}.mlp.fc1`));
      h = h.add(linear(inner, `${block}.mlp.fc2`).mul(gate2));
    }
    const [shift, scale] = parts(c, "final_layer.adaLN_modulation.1", 2) as [JaxArray, JaxArray];
    const out = linear(modulated(h, shift, scale), "final_layer.linear");
    return np.square(out.sub(batch.target)).mean();
  };
}

/** AdamW and the moving average, parameter by parameter. */
function updateOf({ numpy: np }: Jax, work: TrainWork) {
  const { learningRate, beta1, beta2, epsilon, weightDecay, emaDecay } = work;

  return (params: Tree, grads: Tree, m: Tree, v: Tree, ema: Tree, c1: JaxArray, c2: JaxArray) => {
    const next: { params: Tree; m: Tree; v: Tree; ema: Tree } = {
      params: {},
      m: {},
      v: {},
      ema: {},
    };
    for (const [name, p] of Object.entries(params)) {
      const g = grads[name]!.mul(1 / pieces);
      const m1 = m[name]!.mul(beta1).add(g.ref.mul(1 - beta1));
      const v1 = v[name]!.mul(beta2).add(np.square(g).mul(1 - beta2));
      const direction = m1.ref.div(c1.ref).div(np.sqrt(v1.ref.div(c2.ref)).add(epsilon));
      const p1 = p.mul(1 - learningRate * weightDecay).sub(direction.mul(learningRate));
      next.params[name] = p1.ref;
      next.m[name] = m1;
      next.v[name] = v1;
      next.ema[name] = ema[name]!.mul(emaDecay).add(p1.mul(1 - emaDecay));
    }
    c1.dispose();
    c2.dispose();
    return next;
  };
}

export default contender;
