/**
 * einops patterns (Rogozhnikov, 2022): a string names the axes before and after, which determines a reshape and a transpose.
 *
 * "b (h p) (w q) c -> b (h w) (p q c)" with { p: 2, q: 2 } cuts an image into patches.
 */
import { ShapeError } from "../errors.ts";
import { type Dim, formatShape, product, quotient } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

type Side = readonly (readonly string[])[];

/**
 * Reshapes, transposes and reshapes a tensor as a pattern describes. Every name occurs once on each side, `1` is an axis of size 1,
 * and names in parentheses share one axis.
 *
 * @param sizes sizes of axes that do not follow from the shape
 * @throws ShapeError if pattern, sizes and shape do not match
 */
export function rearrange(
  x: Tensor,
  pattern: string,
  sizes: Readonly<Record<string, number>>,
): Tensor {
  const fail = (why: string): never => {
    throw new ShapeError(
      `rearrange "${pattern}" of ${formatShape(x.shape)}: ${why}${x.node.scope ? ` (at ${x.node.scope})` : ""}`,
    );
  };
  const sides = pattern.split("->");
  if (sides.length !== 2) fail("expected one '->'");
  const [left, right] = sides.map((side) => parse(side, fail)) as [Side, Side];
  const names = left.flat().filter((name) => name !== "1");
  checkNames(
    names,
    right.flat().filter((name) => name !== "1"),
    fail,
  );
  if (left.length !== x.rank) fail(`the left side has ${left.length} axes, the tensor ${x.rank}`);

  const dims = new Map<string, Dim>(Object.entries(sizes));
  for (const name of dims.keys()) {
    if (!names.includes(name)) fail(`a size is given for ${name}, which is not in the pattern`);
  }
  for (const [axis, group] of left.entries()) solve(group, x.shape[axis]!, dims, fail);

  const shapeOf = (side: Side) =>
    side.map((group) => product(group.map((name) => (name === "1" ? 1 : dims.get(name)!)))!);
  const order = right.flat().filter((name) => name !== "1");
  return x
    .reshape(names.map((name) => dims.get(name)!))
    .transpose(order.map((name) => names.indexOf(name)))
    .reshape(shapeOf(right));
}

function parse(side: string, fail: (why: string) => never): Side {
  const tokens = side.match(/\w+|\S/g) ?? [];
  const groups: string[][] = [];
  let open: string[] | undefined;
  for (const token of tokens) {
    if (token === "(") {
      if (open) fail("parentheses do not nest");
      open = [];
    } else if (token === ")") {
      groups.push(open ?? fail("a ')' has no matching '('"));
      open = undefined;
    } else if (!/^([A-Za-z_]\w*|1)$/.test(token))
      fail(`'${token}' is neither a name, 1 nor a parenthesis`);
    else if (open) open.push(token);
    else groups.push([token]);
  }
  if (open) fail("a '(' is not closed");
  return groups;
}

function checkNames(
  left: readonly string[],
  right: readonly string[],
  fail: (why: string) => never,
): void {
  for (const [side, names] of [
    ["left", left],
    ["right", right],
  ] as const) {
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice) fail(`${twice} occurs twice on the ${side}`);
  }
  const lonely =
    left.find((name) => !right.includes(name)) ?? right.find((name) => !left.includes(name));
  if (lonely) fail(`${lonely} occurs on one side only`);
}

/** Computes the one unknown size of an axis, and checks the product of its sizes. */
function solve(
  group: readonly string[],
  dim: Dim,
  dims: Map<string, Dim>,
  fail: (why: string) => never,
): void {
  const names = group.filter((name) => name !== "1");
  const unknown = names.filter((name) => !dims.has(name));
  if (unknown.length > 1)
    fail(`the sizes of ${unknown.join(" and ")} cannot both be inferred; give one of them`);
  const known = product(names.filter((name) => dims.has(name)).map((name) => dims.get(name)!));
  const [missing] = unknown;
  if (missing !== undefined) {
    const rest = known === undefined ? undefined : quotient(dim, known);
    dims.set(missing, rest ?? fail(`(${group.join(" ")}) does not divide ${formatShape([dim])}`));
  } else if (known !== dim) fail(`(${group.join(" ")}) is not ${formatShape([dim])}`);
}
