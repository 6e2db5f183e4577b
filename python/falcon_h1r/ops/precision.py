"""How exact float32 products are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Have torch compute float32 products in "highest", "high" or "medium" meanwhile.

    It is torch's own setting, for the whole process; "medium" is bfloat16 inside products.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
