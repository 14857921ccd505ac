/**
 * @file Functions that JavaScript lacks and that several parts must agree on: the error function in float64 and the
 * counter-based random generator. The WebAssembly code has its own float32 versions and is tested against these.
 */

const twoOverSqrtPi = 1.1283791670955126;

/**
 * The error function, within 1e-15 relative. Below 2 the series 2/√π·e^(-x²)·Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!, whose terms are all
 * positive, so nothing cancels (summed by Horner's rule, smallest first); above, 1 - erfc(x) with erfc's continued fraction (Abramowitz & Stegun 7.1.6, 7.1.14).
 */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (!(a < 6)) return Number.isNaN(x) ? x : Math.sign(x); // erfc(6) < 2⁻⁵³
  if (a < 2) {
    const s = 2 * a * a;
    let sum = 1;
    for (let n = 16 + Math.ceil(4 * s); n >= 1; n--) sum = 1 + (s / (2 * n + 1)) * sum;
    return twoOverSqrtPi * x * expMinusSquare(a) * sum;
  }
  let tail = a;
  for (let k = 60; k >= 1; k--) tail = a + k / (2 * tail);
  return Math.sign(x) * (1 - (expMinusSquare(a) * twoOverSqrtPi) / (2 * tail));
}

/** e^(-a²). The rounding error of a² would be multiplied by a² itself, so its high part is squared exactly. */
function expMinusSquare(a: number): number {
  const high = Math.fround(a);
  return Math.exp(-high * high) * Math.exp((high - a) * (high + a));
}

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];

/**
 * First word of Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
 * all words u32.
 */
export function threefry2x32(key0: number, key1: number, c0: number, c1: number): number {
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  let x = (c0 + key0) | 0;
  let y = (c1 + key1) | 0;
  for (let block = 0; block < 5; block++) {
    for (let round = 0; round < 4; round++) {
      const r = rotations[(block % 2) * 4 + round];
      x = (x + y) | 0;
      y = ((y << r) | (y >>> (32 - r))) ^ x;
    }
    x = (x + keys[(block + 1) % 3]) | 0;
    y = (y + keys[(block + 2) % 3] + block + 1) | 0;
  }
  return x >>> 0;
}

/** C's pow, which PyTorch follows: 1 to any power is 1, and so is -1 to ±∞ (JavaScript says NaN). */
export function pow(x: number, y: number): number {
  if (x === 1 || (x === -1 && Math.abs(y) === Number.POSITIVE_INFINITY)) return 1;
  return x ** y;
}

/** Rounds half to even, keeping the sign of zero. */
export function roundEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? (low === 0 ? 0 : low) : low + 1 === 0 ? -0 : low + 1;
}
