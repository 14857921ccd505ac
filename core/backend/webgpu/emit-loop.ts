/**
 * @file The commands of a scan. Carries go back and forth between two buffers, so the body is emitted twice; slices of what
 * runs along are copied in and out, as a binding may begin only at a multiple of 256 bytes.
 */
import { bytesOf } from "../../dtype.ts";
import type { Node } from "../../graph/node.ts";
import type { Ready } from "./code.ts";
import type { Command, Copy, Ref } from "./commands.ts";
import { type Emitter, type Frame, wholeCopy } from "./emit.ts";

export function emitLoop(
  emitter: Emitter,
  frame: Frame,
  item: Extract<Ready, { k: "loop" }>,
  into: Command[],
  guard: boolean,
): void {
  const { region, body, group } = item.step;
  const { scan, body: graph } = region.attrs.region;
  const { length, carries, xs, reverse } = scan!;
  const { table, lives } = emitter;
  const begin = emitter.now;
  const outer = lives.length;
  const sources = region.src.map((s) => emitter.ref(frame, s));
  const sizes = graph.results.map(bytesOf);
  const results: (Ref | null)[] = sizes.map(() => null);
  // What is written in a loop cannot be guarded kernel by kernel: it goes to state at the end.
  const later: Copy[] = [];
  for (const n of group.stores.keys()) {
    const { index } = (n as Node<"project">).attrs;
    const ref = emitter.ref(frame, n);
    results[index] = ref;
    if (!guard || ref < table.outputs || ref >= table.flags) continue;
    results[index] = emitter.value(bytesOf(n));
    later.push(wholeCopy(results[index], ref, bytesOf(n)));
  }
  const value = (bytes: number) => emitter.value(bytes);
  const carry = [0, 1].map(() => sizes.slice(0, carries).map(value));
  const ys = sizes.slice(carries).map(value);
  const slice = (i: number) => i >= carries && i < carries + xs;
  const parts = body.inputs.map((p, i) => (slice(i) ? value(bytesOf(p)) : sources[i]));
  const inner = lives.length;
  for (const [i, to] of carry[0].entries())
    into.push(emitter.copy(wholeCopy(sources[i], to, sizes[i])));

  const row = (t: number) => (reverse ? length - 1 - t : t);
  const incoming = parts.flatMap((part, i) => {
    const bytes = bytesOf(body.inputs[i]);
    return slice(i) ? [sliceCopy(emitter, length, bytes, row, sources[i], part, true)] : [];
  });
  const bodies = [0, 1].map((parity) => {
    const slots = parts.map((part, i) => (i < carries ? carry[parity][i] : part));
    const outputs = [...carry[1 - parity], ...ys];
    const inside: Frame = { plan: body, slots, outputs, scratch: new Map() };
    const commands: Command[] = [];
    for (const step of item.body) emitter.emit(inside, step, commands);
    return commands;
  });
  const outgoing = ys.flatMap((y, i) => {
    const whole = results[carries + i];
    return whole === null
      ? []
      : [sliceCopy(emitter, length, sizes[carries + i], row, whole, y, false)];
  });
  into.push({
    k: "loop",
    length,
    at: (t) => [...incoming.map((c) => c(t)), ...bodies[t % 2], ...outgoing.map((c) => c(t))],
  });
  for (const [i, from] of carry[length % 2].entries()) {
    const whole = results[i];
    if (whole !== null) into.push(emitter.copy(wholeCopy(from, whole, sizes[i])));
  }
  // What a step of the loop reads, the next one may read again; and the loop's own values stay until its end.
  const end = ++emitter.now;
  for (const [i, life] of lives.entries())
    if (i < outer ? life.last >= begin : i < inner) life.last = end;
  for (const ref of [...sources, ...results]) if (ref !== null) emitter.touch(ref);
  for (const { from, to, bytes } of later)
    into.push(emitter.copyBytes(from, 0, to, 0, bytes, true));
}

/** Copies row `row(t)` of `whole` to or from `part` in step t: by words where they can be. */
function sliceCopy(
  emitter: Emitter,
  length: number,
  bytes: number,
  row: (t: number) => number,
  whole: Ref,
  part: Ref,
  incoming: boolean,
): (t: number) => Command {
  const [from, to] = incoming ? [whole, part] : [part, whole];
  const places = (t: number) => (incoming ? [row(t) * bytes, 0] : [0, row(t) * bytes]);
  if (bytes % 4 === 0) {
    const copy = emitter.copy({ from, fromOffset: 0, to, toOffset: 0, bytes });
    return (t) => {
      const [fromOffset, toOffset] = places(t);
      return { ...copy, fromOffset, toOffset };
    };
  }
  const copies = Array.from({ length }, (_, t) => {
    const [fromOffset, toOffset] = places(t);
    return emitter.copyBytes(from, fromOffset, to, toOffset, bytes);
  });
  return (t) => copies[t];
}
