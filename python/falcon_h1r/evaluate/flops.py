"""Floating-point operations of a query, counted from the configuration: a multiply-add is two.

Counted: every product with a weight, attention's two products, the convolution and the state
update. Left out, below one percent of these: norms, activations, RoPE, softmax, sampling.
"""

from collections.abc import Sequence

from falcon_h1r.model.config import FalconH1Config


def weight_flops(config: FalconH1Config) -> int:
    """Return the operations of all layers' projections for one token, without the head."""
    width, head = config.hidden_size, config.attention_head_dim
    attention = width * head * 2 * (config.num_attention_heads + config.num_key_value_heads)
    widths = config.d_ssm + config.conv_dim + config.mamba_n_heads  # z; x, B, C; dt
    ssm = width * widths + config.d_ssm * width
    mlp = 3 * width * config.intermediate_size
    return 2 * config.num_hidden_layers * (attention + ssm + mlp)


def scan_flops(config: FalconH1Config) -> int:
    """Return the operations of all layers' convolution and state update for one token.

    The convolution is a multiply-add a channel and tap. The state, one number a head, channel and
    state, is multiplied by its decay, gets dt x B added (two), and is read by C (two).
    """
    convolution = 2 * config.conv_dim * config.mamba_d_conv
    state = 5 * config.d_ssm * config.mamba_d_state
    return config.num_hidden_layers * (convolution + state)


def attention_flops(config: FalconH1Config, context: int) -> int:
    """Return the operations of q k^T and p v for one token that sees `context` tokens."""
    width = config.num_attention_heads * config.attention_head_dim
    return config.num_hidden_layers * 4 * width * context


def query_flops(
    config: FalconH1Config, num_prompt_tokens: int, trace_lengths: Sequence[int]
) -> int:
    """Return the operations of one query: the prompt once, then every trace.

    A trace's first token comes from the prompt's logits, so a trace of n tokens takes n - 1 steps,
    at the positions behind the prompt; the head runs once for the prompt and once a step.
    """
    fixed = weight_flops(config) + scan_flops(config)
    head = 2 * config.hidden_size * config.vocab_size
    total = num_prompt_tokens * fixed + _attention_sum(config, 0, num_prompt_tokens) + head
    for length in trace_lengths:
        steps = max(0, length - 1)
        total += steps * (fixed + head) + _attention_sum(config, num_prompt_tokens, steps)
    return total


def _attention_sum(config: FalconH1Config, start: int, count: int) -> int:
    """Return the operations of attention of the tokens at positions start .. start + count - 1."""
    contexts = count * start + count * (count + 1) // 2
    return attention_flops(config, 1) * contexts
