"""The cases of cases.ts with PyTorch on the same GPU: reads them as JSON from the file named first, prints results as JSON.

Inputs are resident, calls are warmed up, kernels are timed by CUDA events, steps by the clock over many in a row; medians.
"""

import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

device = "cuda" if torch.cuda.is_available() else "cpu"
dtypes = {"f32": torch.float32, "f16": torch.float16}


def sync():
    if device == "cuda":
        torch.cuda.synchronize()


def tf32(on):
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def kernel_time(fn, warmup, runs):
    """Milliseconds of one call on the device."""
    for _ in range(warmup):
        fn()
    sync()
    if device != "cuda":
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            fn()
            times.append((time.perf_counter() - start) * 1000)
        return statistics.median(times)
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for start, end in events:
        start.record()
        fn()
        end.record()
    sync()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def step_time(fn, warmup, runs, block):
    """Milliseconds of one of `block` steps in a row."""
    for _ in range(warmup):
        fn()
    sync()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(block):
            fn()
        sync()
        times.append((time.perf_counter() - start) * 1000 / block)
    return statistics.median(times)


class Block(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.norm2 = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c["width"]
        self.tokens = torch.nn.Embedding(c["vocabulary"], width)
        self.positions = torch.nn.Embedding(c["length"], width)
        self.blocks = torch.nn.ModuleList(Block(width, c["heads"]) for _ in range(c["depth"]))
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, c["vocabulary"], bias=False)
        for table in (self.tokens, self.positions):
            torch.nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt(c, bf16, compiled):
    torch.manual_seed(0)
    model = Gpt(c).to(device)
    run = torch.compile(model) if compiled else model
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    shape = (c["batch"], c["length"])
    ids = torch.randint(0, c["vocabulary"], shape, device=device)
    targets = torch.randint(0, c["vocabulary"], shape, device=device)

    def step():
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(run(ids).view(-1, c["vocabulary"]), targets.view(-1))
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        return loss

    return step


def measure(c, warmup, runs, block):
    """Milliseconds by variant."""
    kind = c["kind"]
    tf32(False)
    if kind == "matmul":
        dtype = dtypes[c["dtype"]]
        a = torch.randn(c["m"], c["k"], device=device, dtype=dtype)
        b = torch.randn(c["k"], c["n"], device=device, dtype=dtype)
        found = {c["dtype"]: kernel_time(lambda: a @ b, warmup, runs)}
        if c["dtype"] == "f32" and device == "cuda":
            tf32(True)
            found["tf32"] = kernel_time(lambda: a @ b, warmup, runs)
        return found
    if kind == "rows":
        x = torch.randn(c["rows"], c["columns"], device=device)
        weight, bias = torch.ones(c["columns"], device=device), torch.zeros(c["columns"], device=device)
        if c["op"] == "elementwise":
            # One kernel that moves what Hinode's fused one moves; eager PyTorch would need three for all of it.
            fn = F.relu
        elif c["op"] == "softmax":
            fn = lambda t: F.softmax(t, -1)
        else:
            fn = lambda t: F.layer_norm(t, (c["columns"],), weight, bias)
        return {"f32": kernel_time(lambda: fn(x), warmup, runs)}
    if kind == "attention":
        shape = (c["batch"], c["heads"], c["length"], c["width"])
        dtype = dtypes[c["dtype"]]
        q, k, v = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        g = torch.randn(shape, device=device, dtype=dtype)

        def fn():
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.autograd.grad(out, (q, k, v), g)

        return {c["dtype"]: kernel_time(fn, warmup, runs)}
    variants = {"eager": (False, False, False)}
    if device == "cuda":
        variants |= {
            "eager tf32": (True, False, False),
            "eager bf16": (True, True, False),
            "compiled bf16": (True, True, True),
        }
    found = {}
    for name, (with_tf32, bf16, compiled) in variants.items():
        try:
            tf32(with_tf32)
            found[name] = step_time(gpt(c, bf16, compiled), warmup, runs, block)
        except Exception as error:  # no compiler, no memory: the others still count
            print(f"{c['id']} {name}: {error}", file=sys.stderr)
        if device == "cuda":
            torch.cuda.empty_cache()
    return found


def main():
    with open(sys.argv[1]) as file:
        request = json.load(file)
    settings = (request["warmup"], request["runs"], request["block"])
    results = {}
    for c in request["cases"]:
        try:
            results[c["id"]] = measure(c, *settings)
        except Exception as error:
            print(f"{c['id']}: {error}", file=sys.stderr)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"version": torch.__version__, "device": name, "milliseconds": results}))


main()
