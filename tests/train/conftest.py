import shutil
import sys
from pathlib import Path

import pytest
import torch

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM
from falcon_h1r.train.vocabulary import build_vocabulary

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers of this folder

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


TINY_RL = """
seed: 3
model: {model}
data: {{families: {{sums: 1.0, equations: 1.0}}, levels: {{1: 1.0}}}}
rollout: {{num_prompts: 3, group_size: 4, max_tokens: 16, max_prompts: 9, max_kept: 4}}
reward: {{length: 1.0}}
optimizer: {{kind: adamw, steps: 6, adam_lr: 0.01, warmup_steps: 1, final_lr: 1.0}}
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    """A random model many of whose tokens end a response, so that lengths differ."""
    config = FalconH1Config(
        vocab_size=512, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, mamba_d_ssm=16, mamba_n_heads=2,
        mamba_d_state=4, mamba_chunk_size=16, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=[4, *range(300, 360)],
    )  # fmt: skip
    model = FalconH1ForCausalLM(config)
    model.reset_parameters(seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    folder = tmp_path_factory.mktemp("tiny_model")
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(vocabulary / name, folder / name)
    return folder


@pytest.fixture
def rl_recipe(tmp_path: Path, tiny_model: Path) -> Path:
    """A recipe in which length is the reward: what a random model can learn."""
    path = tmp_path / "rl.yaml"
    path.write_text(TINY_RL.format(model=tiny_model))
    return path
