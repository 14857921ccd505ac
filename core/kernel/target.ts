/** @file What kernels for the CPU may count on in the engine that compiles them. */

export interface CpuTarget {
  /** Two neighbouring vectors share a register of 256 bits in kernels of at least `worthWide` operations. */
  readonly wide: boolean;
}

export const narrow: CpuTarget = { wide: false };

/** Floating-point operations of a call from which on compiling a kernel with the optimising tier at once (1–2 ms) pays. */
export const worthWide = 4e6;
