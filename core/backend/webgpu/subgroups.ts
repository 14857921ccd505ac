/**
 * @file Whether the invocations of a subgroup are neighbours in the workgroup. All drivers do it so, but WGSL leaves it open;
 * reductions that exchange registers rely on it, so each device is asked once.
 */
import { mapRead, usage } from "./buffers.ts";

const threads = 64;
const code = `enable subgroups;
@group(0) @binding(0) var<storage, read_write> agreeing: atomic<u32>;
@compute @workgroup_size(${threads}) fn main(
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) size: u32,
) {
  let next = subgroupShuffleXor(t, 1u);
  if (lane == t % size && next == (t ^ 1u)) { atomicAdd(&agreeing, 1u); }
}
`;

/** Needs the feature "subgroups". False too where the device is lost meanwhile. */
export async function subgroupsAreNeighbours(device: GPUDevice): Promise<boolean> {
  const count = device.createBuffer({ size: 4, usage: usage.storage | usage.copySrc });
  const copy = device.createBuffer({ size: 4, usage: usage.copyDst | usage.mapRead });
  try {
    const pipeline = await device.createComputePipelineAsync({
      layout: "auto",
      compute: { module: device.createShaderModule({ code }) },
    });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    const entries = [{ binding: 0, resource: { buffer: count } }];
    pass.setBindGroup(
      0,
      device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
    );
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(count, 0, copy, 0, 4);
    device.queue.submit([encoder.finish()]);
    await copy.mapAsync(mapRead);
    return new Uint32Array(copy.getMappedRange())[0] === threads;
  } catch {
    return false;
  } finally {
    count.destroy();
    copy.destroy();
  }
}
