/**
 * @file Measured calls in Chrome's trace format: per device a line of runs on the host and a line of kernels. A GPU's clock
 * begins anywhere; its first kernel is put where the host submitted it.
 */
import type { Call } from "./profile.ts";

interface TraceEvent {
  readonly name: string;
  readonly ph: "X" | "M";
  readonly pid: number;
  readonly tid: number;
  /** Microseconds. */
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** Processes of the trace: the program, then devices as they appear; threads within a device. */
const program = 1;
const [hostThread, kernelThread] = [1, 2];

export function chromeTrace(name: string, calls: readonly Call[]): string {
  const events: TraceEvent[] = [];
  const label = (kind: "process_name" | "thread_name", pid: number, tid: number, text: string) =>
    events.push({ name: kind, ph: "M", pid, tid, args: { name: text } });
  const begin = calls[0].start;
  const span = (
    what: string,
    [pid, tid]: readonly [number, number],
    start: number,
    end: number,
    rest: Pick<TraceEvent, "cat" | "args"> = {},
  ) => {
    const ts = (start - begin) * 1000;
    events.push({ name: what, ph: "X", pid, tid, ts, dur: (end - start) * 1000, ...rest });
  };
  label("process_name", program, hostThread, name);
  const pids = new Map<string, number>();
  const offsets = new Map<string, number>();
  for (const [i, call] of calls.entries()) {
    span(`${name} ${i + 1}`, [program, hostThread], call.start, call.end);
    for (const run of call.runs) {
      let pid = pids.get(run.device);
      if (pid === undefined) {
        pids.set(run.device, (pid = program + 1 + pids.size));
        label("process_name", pid, hostThread, run.device);
        label("thread_name", pid, hostThread, run.clock === "gpu" ? "submission" : "plans");
        label("thread_name", pid, kernelThread, "kernels");
      }
      span("run", [pid, hostThread], run.start, run.submitted, {
        args: { kernels: run.calls.length },
      });
      if (!run.kernels?.length) continue;
      if (!offsets.has(run.device))
        offsets.set(run.device, run.clock === "gpu" ? run.submitted - run.kernels[0].start : 0);
      const offset = offsets.get(run.device)!;
      for (const { kernel, start, end } of run.kernels)
        span(kernel.name, [pid, kernelThread], start + offset, end + offset, {
          cat: kernel.kind,
          args: { bytes: kernel.bytes, flops: kernel.flops },
        });
    }
  }
  return JSON.stringify({ displayTimeUnit: "ms", traceEvents: events });
}
