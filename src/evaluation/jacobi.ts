/**
 * Singular values and roots of small square matrices by one-sided Jacobi rotations (Hestenes, 1958), which find small
 * singular values as precisely as large ones (Demmel & Veselić, 1992). All matrices are n×n, row-major.
 */

const MOST_SWEEPS = 60;

/** Sum of the singular values. */
export function nuclearNorm(matrix: Float64Array, n: number): number {
  return norms(orthogonalRows(matrix, n), n).reduce((sum, value) => sum + value, 0);
}

/** The root of a symmetric matrix without negative eigenvalues, itself such a matrix. */
export function matrixRoot(matrix: Float64Array, n: number): Float64Array {
  const rows = orthogonalRows(matrix, n);
  const values = norms(rows, n);
  // What is below it is rounding, whose root would be far from none.
  const least = n * Number.EPSILON * Math.max(...values);
  const root = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    if (values[k]! <= least) continue;
    // A row is its singular value times a unit vector v, and the root is Σ √value·v·vᵀ.
    const scale = values[k]! ** -1.5;
    for (let i = 0; i < n; i++) {
      const factor = scale * rows[k * n + i]!;
      for (let j = 0; j < n; j++) root[i * n + j]! += factor * rows[k * n + j]!;
    }
  }
  return root;
}

/** a·b */
export function product(a: Float64Array, b: Float64Array, n: number): Float64Array {
  const result = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      const factor = a[i * n + k]!;
      for (let j = 0; j < n; j++) result[i * n + j]! += factor * b[k * n + j]!;
    }
  }
  return result;
}

/** An orthogonal matrix times the given one, such that the rows are orthogonal: their lengths are the singular values. */
function orthogonalRows(matrix: Float64Array, n: number): Float64Array {
  const rows = Float64Array.from(matrix);
  const tolerance = n * Number.EPSILON;
  const none = (tolerance * Math.hypot(...norms(rows, n))) ** 2;
  for (let sweep = 0, rotated = true; rotated && sweep < MOST_SWEEPS; sweep++) {
    rotated = false;
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        const [a, b] = [p * n, q * n];
        let [pp, qq, pq] = [0, 0, 0];
        for (let i = 0; i < n; i++) {
          const [x, y] = [rows[a + i]!, rows[b + i]!];
          pp += x * x;
          qq += y * y;
          pq += x * y;
        }
        if (Math.abs(pq) <= tolerance * Math.sqrt(pp * qq) || Math.min(pp, qq) <= none) continue;
        rotated = true;
        const zeta = (qq - pp) / (2 * pq);
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        const sine = cosine * tangent;
        for (let i = 0; i < n; i++) {
          const [x, y] = [rows[a + i]!, rows[b + i]!];
          rows[a + i] = cosine * x - sine * y;
          rows[b + i] = sine * x + cosine * y;
        }
      }
    }
  }
  return rows;
}

function norms(rows: Float64Array, n: number): number[] {
  return Array.from({ length: n }, (_, i) => {
    let squares = 0;
    for (let j = i * n; j < (i + 1) * n; j++) squares += rows[j]! * rows[j]!;
    return Math.sqrt(squares);
  });
}
