/** Orthonormalizes columns of equal length in place (modified Gram–Schmidt). */
export function orthonormalise(columns: readonly Float64Array[]): void {
  for (const [i, column] of columns.entries()) {
    for (const before of columns.slice(0, i)) {
      const shared = column.reduce((sum, value, k) => sum + value * before[k]!, 0);
      for (let k = 0; k < column.length; k++) column[k]! -= shared * before[k]!;
    }
    const length = Math.hypot(...column);
    for (let k = 0; k < column.length; k++) column[k]! /= length;
  }
}
