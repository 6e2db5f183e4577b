"""The products of a supervised step with operands in bfloat16: ours beside torch's.

Shapes of `reference_sft` (3,840 packed tokens, width 192), one thread, in turns, the least
processor time of each; every operand was last touched a whole round ago, as in training. Where
the CPU is not one that our kernel is for (see `ops/cpu_products.py`), both lines are torch's.

Legend: T packed tokens, K inputs, N outputs of a projection.
"""

import time
from collections import defaultdict

import pytest
import torch

from falcon_h1r.ops import cpu_products
from falcon_h1r.ops.precision import matmul_precision

T, ROUNDS = 3840, 8
PROJECTIONS = [(192, 448), (192, 448), (448, 192), (192, 584), (256, 192), (192, 192), (192, 64)]


def bench_products(monkeypatch: pytest.MonkeyPatch) -> None:
    suited, threads = cpu_products._IS_SUITED, torch.get_num_threads()
    torch.set_num_threads(1)
    cases = []
    for K, N in PROJECTIONS:
        x, weight, dy = torch.randn(T, K), torch.randn(N, K), torch.randn(T, N)
        cases += [("y", x, weight.t()), ("dx", dy, weight), ("dweight", dy.t(), x)]
    least: dict[tuple[str, int], float] = defaultdict(lambda: float("inf"))
    try:
        with matmul_precision("medium"):
            for turn in range(2 * ROUNDS):
                name = ("torch", "ours")[turn % 2]
                monkeypatch.setattr(cpu_products, "_IS_SUITED", suited and name == "ours")
                for i, (_, a, b) in enumerate(cases):
                    began = time.process_time()
                    cpu_products.mm(a, b, torch.empty(a.shape[0], b.shape[1]))
                    least[name, i] = min(least[name, i], time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    print()
    for name in ("torch", "ours"):
        for product in ("y", "dx", "dweight"):
            chosen = [i for i, case in enumerate(cases) if case[0] == product]
            flops = sum(2 * cases[i][1].numel() * cases[i][2].shape[1] for i in chosen)
            seconds = sum(least[name, i] for i in chosen)
            print(f"{name:6} {product:8} {flops / seconds / 1e9:6.1f} GFLOP/s")
