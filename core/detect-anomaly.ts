/** @file detectAnomaly as a function around a piece of a program. */
import { isAnomalyEnabled, setDetectAnomaly } from "./anomaly.ts";
import { devices } from "./device.ts";
import { takeAnomalies } from "./diagnose.ts";

/**
 * Runs `fn`, also an async one, and throws an AnomalyError if an operation in it makes a NaN or an infinity out of finite
 * values: the error names the operation, the line that called it, and of a gradient also the line of the forward
 * value. Values are checked when they are computed, so read them, or what depends on them, inside. Functions that
 * `compile` returned are traced again. A step that fails leaves state as it was. Nothing is reported that reaches no
 * result (as behind a `where`), and infinities that the program itself writes are no anomalies.
 *
 * Every value is checked on the host, and in-place updates become copies: switch it on to find an error, not to train.
 * PyTorch: torch.autograd.detect_anomaly.
 */
export async function detectAnomaly<R>(fn: () => R | Promise<R>): Promise<R> {
  const before = isAnomalyEnabled();
  takeAnomalies();
  setDetectAnomaly(true);
  try {
    const result = await fn();
    await Promise.all(devices().map((device) => device.ready()));
    const [first] = takeAnomalies();
    if (first) throw first;
    return result;
  } finally {
    setDetectAnomaly(before);
  }
}
