/**
 * The work of `train-work.ts` in TensorFlow.js, on its WebAssembly backend. Only matMul without its transposition
 * flags is fast there (the flags, which its own gradient uses, are 12 to 50 times slower), so the linear layers
 * define their own gradient, which transposes the smaller operand first. Memory is limited to 4 GiB, and all
 * intermediates of a gradient are kept until its end, so it is computed on pieces of the batch and averaged.
 */
import type { Scalar, Tensor, Tensor2D, Variable } from "@tensorflow/tfjs";
import { type Contender, timed } from "../contender.ts";
import { readTensors, readWork } from "../tensor-file.ts";
import { trainParameters, type TrainWork } from "../train-work.ts";
import { loadTf, type Tf } from "./tfjs.ts";

const pieces = 4;

type Parameters = ReadonlyMap<string, Variable>;
interface Batch {
  readonly x: Tensor2D;
  readonly t: Tensor2D;
  /** Looks up by one-hot products, because gather has no gradient on this backend. */
  readonly y: Tensor2D;
  readonly target: Tensor2D;
  readonly positions: Tensor;
}

const contender: Contender = {
  async setup(workDir) {
    const work = readWork(workDir) as TrainWork;
    const { tf, settings } = await loadTf(work.threads);
    const tensors = readTensors(workDir);
    const load = (name: string): Tensor => {
      const { shape, data } = tensors.get(name)!;
      return tf.tensor(data, [...shape]);
    };
    const params = new Map(
      trainParameters(work).map(([name]) => [name, tf.variable(load(name), true, name)]),
    );
    const rows = work.batch * work.tokens;
    const split = (tensor: Tensor): Tensor2D[] => tf.split(tensor, pieces);
    const xs = split(load("x").reshape([rows, work.channels]));
    const ts = split(load("t").reshape([work.batch, 1]));
    const ys = split(tf.oneHot(load("y").toInt(), work.classes).toFloat());
    const targets = split(load("target").reshape([rows, work.channels]));
    const positions = load("pos_embed");
    const batches = xs.map((x, i): Batch => ({
      x,
      t: ts[i]!,
      y: ys[i]!,
      target: targets[i]!,
      positions,
    }));
    const loss = lossOf(tf, work, params);
    const update = optimizer(tf, work, params);

    let sums: Record<string, Tensor> = {};
    const addTo = (total: Record<string, Tensor>, grads: Record<string, Tensor>): void => {
      for (const [name, grad] of Object.entries(grads)) {
        const sum = total[name]!.add(grad);
        tf.dispose([total[name]!, grad]);
        total[name] = sum;
      }
    };

    return {
      settings,
      async step() {
        const { ms, result } = await timed(() =>
          batches.map((batch, i) => {
            const { value, grads } = tf.variableGrads(() => loss(batch), [...params.values()]);
            if (i === 0) sums = grads;
            else addTo(sums, grads);
            if (i === pieces - 1) update(sums);
            return value;
          }),
        );
        let value = 0;
        for (const scalar of result) value += (await scalar.data())[0]! / pieces;
        tf.dispose(result);
        return { ms, value };
      },
    };
  },
};

/** The loss as a function of the batch; activations are [rows, features]. */
function lossOf(tf: Tf, work: TrainWork, params: Parameters) {
  const { hidden, heads, tokens, frequencies } = work;
  const images = work.batch / pieces;
  const rows = images * tokens;

  const product = tf.customGrad((...operands) => {
    const [x, weight, save] = operands as unknown as [
      Tensor2D,
      Tensor2D,
      (saved: Tensor[]) => void,
    ];
    save([x, weight]);
    return {
      value: tf.matMul(x, weight.transpose()),
      gradFunc: (dy: Tensor, [savedX, savedWeight]: Tensor[]) => {
        const input = savedX as Tensor2D;
        const widening = dy.shape[1]! > input.shape[1];
        return [
          tf.matMul(dy, savedWeight as Tensor2D),
          widening
            ? tf.matMul(input.transpose(), dy as Tensor2D).transpose()
            : tf.matMul(dy.transpose(), input),
        ];
      },
    };
  });
  const linear = (x: Tensor, name: string): Tensor =>
    product(x, params.get(`${name}.weight`)!).add(params.get(`${name}.bias`)!);

  // x · sigmoid(2u) is the tanh form of GELU, without the backend's slow tanh.
  const gelu = tf.customGrad((...operands) => {
    const [x, save] = operands as unknown as [Tensor, (saved: Tensor[]) => void];
    const slope = 2 * Math.sqrt(2 / Math.PI);
    const gate = tf.tidy(() =>
      x
        .mul(
          x
            .square()
            .mul(0.044715 * slope)
            .add(slope),
        )
        .sigmoid(),
    );
    save([x, gate]);
    return {
      value: x.mul(gate),
      gradFunc: (dy: Tensor, [input, s]: Tensor[]) => {
        const inner = input!
          .square()
          .mul(3 * 0.044715 * slope)
          .add(slope);
        return dy.mul(s!.add(input!.mul(inner).mul(s!.sub(s!.square()))));
      },
    };
  });

  const norm = (h: Tensor): Tensor => {
    const centered = h.sub(h.mean(-1, true));
    return centered.mul(centered.square().mean(-1, true).add(1e-6).rsqrt());
  };
  /** Reshapes `h` to [images, tokens, features], for operands with one row per image. */
  const byImage = (h: Tensor): Tensor => h.reshape([images, tokens, -1]);
  const modulated = (h: Tensor, shift: Tensor, scale: Tensor): Tensor =>
    byImage(norm(h)).mul(scale.add(1)).add(shift).reshape([rows, hidden]);
  const gated = (h: Tensor, gate: Tensor): Tensor => byImage(h).mul(gate).reshape([rows, hidden]);
  const parts = (c: Tensor, name: string, count: number): Tensor[] =>
    tf.split(linear(c, name).reshape([images, 1, count * hidden]), count, -1);

  const attention = (h: Tensor, name: string): Tensor => {
    // A single transposition of five axes would be slow on this backend.
    const [q, k, v] = tf
      .split(linear(h, `${name}.qkv`), 3, -1)
      .map((part) =>
        part.reshape([images, tokens, heads, hidden / heads]).transpose([0, 2, 1, 3]),
      ) as [Tensor, Tensor, Tensor];
    const scores = tf.matMul(q.mul((hidden / heads) ** -0.5), k, false, true);
    const mixed = tf.matMul(scores.softmax(-1), v).transpose([0, 2, 1, 3]);
    return linear(mixed.reshape([rows, hidden]), `${name}.proj`);
  };

  return ({ x, t, y, target, positions }: Batch): Scalar => {
    const half = frequencies / 2;
    const angle = t.mul(
      tf
        .range(0, half)
        .mul(-Math.log(10000) / half)
        .exp(),
    );
    const silu = (a: Tensor): Tensor => a.mul(a.sigmoid());
    const time = linear(
      silu(linear(tf.concat([angle.cos(), angle.sin()], -1), "t_embedder.mlp.0")),
      "t_embedder.mlp.2",
    );
    const label = tf.matMul(y, params.get("y_embedder.embedding_table.weight")!);
    const c = silu(time.add(label));
    let h = byImage(linear(x, "x_embedder.proj")).add(positions).reshape([rows, hidden]);
    for (let i = 0; i < work.depth; i++) {
      const block = `blocks.${i}`;
      const [shift1, scale1, gate1, shift2, scale2, gate2] = parts(
        c,
        `${block}.adaLN_modulation.1`,
        6,
      ) as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
      h = h.add(gated(attention(modulated(h, shift1, scale1), `${block}.attn`), gate1));
      const inner = gelu(linear(modulated(h, shift2, scale2), `${block}.mlp.fc1`));
      h = h.add(gated(linear(inner, `${block}.mlp.fc2`), gate2));
    }
    const [shift, scale] = parts(c, "final_layer.adaLN_modulation.1", 2) as [Tensor, Tensor];
    const out = linear(modulated(h, shift, scale), "final_layer.linear");
    return out.sub(target).square().mean();
  };
}

/** AdamW and the moving average; disposes of the gradients. */
function optimizer(tf: Tf, work: TrainWork, params: Parameters) {
  const { learningRate, beta1, beta2, epsilon, weightDecay, emaDecay } = work;
  const state = new Map(
    [...params].map(([name, p]) => [
      name,
      {
        m: tf.variable(tf.zerosLike(p), false),
        v: tf.variable(tf.zerosLike(p), false),
        ema: tf.variable(p.clone(), false),
      },
    ]),
  );
  let count = 0;

  return (grads: Record<string, Tensor>): void => {
    count++;
    const correction1 = 1 - beta1 ** count;
    const correction2 = Math.sqrt(1 - beta2 ** count);
    for (const [name, p] of params) {
      const { m, v, ema } = state.get(name)!;
      tf.tidy(() => {
        const g = grads[name]!.div(pieces);
        m.assign(m.mul(beta1).add(g.mul(1 - beta1)));
        v.assign(v.mul(beta2).add(g.square().mul(1 - beta2)));
        const direction = m.div(v.sqrt().div(correction2).add(epsilon));
        p.assign(
          p.mul(1 - learningRate * weightDecay).sub(direction.mul(learningRate / correction1)),
        );
        ema.assign(ema.mul(emaDecay).add(p.mul(1 - emaDecay)));
      });
    }
    tf.dispose(grads);
  };
}

export default contender;
