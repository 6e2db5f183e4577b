"""What Python sees: pickles, threads, forks, odd strings, arrays, folders, time limits."""

import copy
import itertools
import json
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from falcon_h1r.errors import TokenizerError
from falcon_h1r.hub import model_folder
from falcon_h1r.tokenizer import Tokenizer

from .pipelines import ALL, nasty_texts, reference_json


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(reference_json("llama3"))


def test_a_copy_is_whole(tokenizer: Tokenizer) -> None:
    # copy and multiprocessing go the way of __reduce__.
    full = Tokenizer(tokenizer.to_json(), chat_template="x", eos_token_ids=[2, 1], bos_token_id=0)
    twin = copy.deepcopy(full)
    assert twin is not full
    assert twin.encode("a copy <think>") == tokenizer.encode("a copy <think>")
    assert (twin.chat_template, twin.eos_token_ids, twin.eos_token_id) == ("x", (2, 1), 2)
    assert (twin.bos_token_id, twin.pad_token_id) == (0, None)


def test_threads_share_one_object(tokenizer: Tokenizer) -> None:
    texts = nasty_texts(400, seed=1)
    want = tokenizer.encode_batch(texts)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: [tokenizer.encode(t) for t in texts], range(8)))
    assert all(result == want for result in results)


def test_results_do_not_depend_on_threads(tokenizer: Tokenizer) -> None:
    texts = nasty_texts(3_000, seed=2, longest=400)
    assert sum(map(len, texts)) > 3 * 2**17  # else one thread does all
    want = [tokenizer.encode(t) for t in texts]
    for num_threads in (1, 2, 5, None):
        assert tokenizer.encode_batch(texts, num_threads=num_threads) == want
        ids, offsets = tokenizer.encode_ragged(texts, num_threads=num_threads)
        assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
        assert offsets[0] == 0 and offsets[-1] == len(ids)
        assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == want


def test_nothing_to_encode(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.encode_batch([]) == []
    ids, offsets = tokenizer.encode_ragged([])
    assert (ids.tolist(), offsets.tolist()) == ([], [0])
    assert tokenizer.decode([]) == ""
    assert tokenizer.encode_segments([]) == []


def test_fork_after_a_threaded_batch(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(reference_json("gpt2"))
    code = (
        "import os, sys\n"
        "from falcon_h1r.tokenizer import Tokenizer\n"
        "tokenizer = Tokenizer.from_pretrained(sys.argv[1])\n"
        "texts = [f'text {i} ' * 300 for i in range(200)]\n"
        "want = tokenizer.encode_batch(texts, num_threads=3)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(tokenizer.encode_batch(texts, num_threads=3) != want)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_spawned_process(tokenizer: Tokenizer) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ids = pool.apply_async(tokenizer.encode, ("a spawned <think>",)).get(timeout=60)
    assert ids == tokenizer.encode("a spawned <think>")


def test_lone_surrogates_read_as_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud800b\udc00") == tokenizer.encode("a\ufffdb\ufffd")
    assert tokenizer.encode_batch(["\udfff"]) == [tokenizer.encode("\ufffd")]
    assert tokenizer.encode_segments([("\udfff", False)]) == tokenizer.encode("\ufffd")
    assert tokenizer.token_to_id("\ud800") == tokenizer.token_to_id("\ufffd")
    extended = tokenizer.extend_for_reasoning(["\ud800"])
    assert extended.token_to_id("\ufffd") is not None
    assert tokenizer.apply_chat_template([], chat_template="\ud800") == "\ufffd"


@pytest.mark.parametrize("token_id", [-1, 2**32, 2**64, -(2**200)])
def test_what_is_no_id_names_no_token(tokenizer: Tokenizer, token_id: int) -> None:
    assert tokenizer.id_to_token(token_id) is None
    for read in (tokenizer.decode_stream().push, lambda token_id: tokenizer.decode([token_id])):
        with pytest.raises(TokenizerError, match=rf"token id {str(token_id)[:60]}\d* is unknown"):
            read(token_id)


def test_nul_and_wrong_types(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"
    for wrong in (None, b"bytes", 3):
        with pytest.raises(TypeError):
            tokenizer.encode(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama3", "falcon7b", "tekken"])
@pytest.mark.parametrize("unit", ["a", "^", " ", "\n", "é", "1", "ab^ 1"])
def test_a_megabyte_of_one_letter_is_quick(name: str, unit: str) -> None:
    tokenizer = Tokenizer(reference_json(name))
    text = unit * (10**6 // len(unit.encode()))
    start = time.process_time()
    ids = tokenizer.encode(text)
    seconds = time.process_time() - start
    assert tokenizer.decode(ids) == text
    # 0.2 s is the promise on a machine of its own; this one may be shared by slower work.
    assert seconds < 0.6, f"{seconds:.3f} s"


def test_the_cache_forgets_nothing_that_matters(tokenizer: Tokenizer) -> None:
    # More distinct words than the cache holds, short and long, then the first ones again.
    words = [f"w{i}x{i * 7919 % 104729}" for i in range(120_000)]
    words += [f"{'longword' * 3}{i}" for i in range(40_000)]
    fresh = Tokenizer(tokenizer.to_json())
    sample = words[:200] + words[120_000:120_200]
    want = [fresh.encode(w) for w in sample]
    tokenizer.encode_batch(words, num_threads=1)
    assert [tokenizer.encode(w) for w in sample] == want


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    assert Tokenizer.from_file(path).encode("the same") == tokenizer.encode("the same")
    assert Tokenizer.from_file(str(path)).vocab_size == len(tokenizer) == tokenizer.vocab_size
    assert "vocab_size" in repr(tokenizer)


def test_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(reference_json("gpt2"))
    assert Tokenizer.is_in(tmp_path)
    bare = Tokenizer.from_pretrained(tmp_path)
    assert (bare.chat_template, bare.eos_token_ids, bare.eos_token_id) == (None, (), None)
    config = {
        "bos_token": {"content": "<|begin_of_text|>", "special": True},
        "eos_token": "<|im_end|>",
        "chat_template": "from the config",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [4, 2], "pad_token_id": 3}')
    full = Tokenizer.from_pretrained(str(tmp_path))
    assert (full.bos_token_id, full.eos_token_ids, full.pad_token_id) == (0, (2, 4), 3)
    assert full.chat_template == "from the config"
    (tmp_path / "chat_template.json").write_text('{"chat_template": "from json"}')
    assert Tokenizer.from_pretrained(tmp_path).chat_template == "from json"
    (tmp_path / "chat_template.jinja").write_text("from jinja")
    assert Tokenizer.from_pretrained(tmp_path).chat_template == "from jinja"


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json in"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="no such folder"):
        Tokenizer.from_pretrained(tmp_path / "missing")
    with pytest.raises(TokenizerError, match="no such folder"):
        model_folder("an-owner/a-model-that-is-nowhere", error=TokenizerError)
    with pytest.raises(TokenizerError, match="cannot read"):
        Tokenizer.from_file(tmp_path / "missing.json")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: tokenizer\.json is broken"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(reference_json("gpt2"))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(TokenizerError, match=r"config\.json is not a JSON object"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{]")
    with pytest.raises(TokenizerError, match="broken JSON"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_tokens_and_ids(name: str) -> None:
    tokenizer = Tokenizer(reference_json(name))
    for token_id in (0, 1, 70, tokenizer.vocab_size - 1):
        token = tokenizer.id_to_token(token_id)
        assert token is not None and tokenizer.token_to_id(token) == token_id
    assert tokenizer.token_to_id("no such token") is None
    assert tokenizer.special_tokens()[:2] == [("<|begin_of_text|>", 0), ("<|im_start|>", 1)]


def test_save_is_whole_or_absent(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: No space left"):
        tokenizer.save(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    tokenizer.save(path)
    assert Tokenizer.from_file(path).encode("abc") == tokenizer.encode("abc")
    with pytest.raises(TokenizerError, match="cannot write"):
        tokenizer.save(tmp_path / "nowhere" / "x.json")
