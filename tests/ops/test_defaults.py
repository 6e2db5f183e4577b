"""Kernels take torch's memory by address: the default dtype and device must not reach them."""

import subprocess
import sys

import pytest

CODE = """
import sys, torch
from falcon_h1r import LLM, SamplingParams
{setting}
with LLM() as llm:
    [result] = llm.think(["What is 17 + 25 - 9?"], sampling_params=SamplingParams(seed=1))
    print(result.answer, [round(t.lowest_group, 4) for t in result.traces][:4])
from falcon_h1r.train.rewards import Verdicts
from falcon_h1r import FalconH1ForCausalLM, reference_model_path
model = FalconH1ForCausalLM.from_pretrained(reference_model_path())
ids = torch.arange(5, 60, device="cpu")
hidden = model.hidden_packed(ids, torch.tensor([0, 20, 55], dtype=torch.int32, device="cpu"))
model.token_losses(hidden, ids).mean().backward()
print(round(float(model.model.embed_tokens.weight.grad.double().norm()), 6))
"""


def said(setting: str) -> str:
    code = CODE.format(setting=setting)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "setting",
    [
        "torch.set_default_dtype(torch.bfloat16)",
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
    ],
)
def test_torchs_defaults_do_not_reach_the_kernels(setting: str) -> None:
    assert said(setting) == said("")
