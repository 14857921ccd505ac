/** @file What schedules and printers need to know of a GPU; no GPU types, so that plans can be made and tested without one. */

export interface GpuTarget {
  /** 16-bit floats in storage and arithmetic. */
  readonly f16: boolean;
  /** Neighbours in a workgroup may exchange registers: `subgroupMin` of them or more are in one subgroup. */
  readonly subgroups: boolean;
  readonly subgroupMin: number;
  readonly subgroupMax: number;
  /** Subgroups multiply matrices of 16 × 16: f16 factors, f32 results. */
  readonly subgroupMatrix: boolean;
  /** Most invocations of a workgroup, also along x. */
  readonly invocations: number;
  /** Bytes of workgroup memory. */
  readonly sharedBytes: number;
  /** Storage buffers that one kernel may bind. */
  readonly buffers: number;
}
