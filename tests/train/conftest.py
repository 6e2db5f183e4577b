from pathlib import Path

import pytest
import torch

from falcon_h1r.train.vocabulary import build_vocabulary

TINY = """
seed: 3
model: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
  num_key_value_heads: 1, head_dim: 8, mamba_d_ssm: 16, mamba_n_heads: 2, mamba_d_state: 4,
  mamba_chunk_size: 16, max_position_embeddings: 1024}
data: {rows: 2, row_length: 192, vocabulary_size: 512, families: {sums: 1.0, equations: 1.0}}
optimizer: {steps: 6, warmup_steps: 2}
evaluate_every: 0
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    build_vocabulary(folder, 512)
    return folder
