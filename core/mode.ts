/** @file Gradient mode: whether operations are recorded as differentiable. One flag, as in PyTorch. */

let gradEnabled = true;

/** Whether results are differentiable; see `noGrad`. */
export const isGradEnabled = (): boolean => gradEnabled;

function withGrad<R>(enabled: boolean, fn: () => R): R {
  const before = gradEnabled;
  const restore = () => {
    gradEnabled = before;
  };
  gradEnabled = enabled;
  let result: R;
  try {
    result = fn();
  } catch (error) {
    restore();
    throw error;
  }
  // An async function keeps the mode until it ends; other code that runs between its awaits shares it.
  if (result instanceof Promise) return result.finally(restore) as R;
  restore();
  return result;
}

/** Runs `fn` (also an async one) without recording gradients: its results are constants to `backward`. */
export const noGrad = <R>(fn: () => R): R => withGrad(false, fn);
/** Records gradients inside a `noGrad`. */
export const enableGrad = <R>(fn: () => R): R => withGrad(true, fn);
