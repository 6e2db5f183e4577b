"""Turn text into the token ids of a model, or count them."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from falcon_h1r.errors import RequestError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r tokenize`."""
    parser.add_argument("text", nargs="?", help="the text; without it, standard input")
    parser.add_argument("--file", type=Path, help="read the text from this file")
    parser.add_argument("--model", help="model folder or hub id (default: the model in the wheel)")
    parser.add_argument("--count", action="store_true", help="print the number of tokens only")
    parser.add_argument(
        "--add-special-tokens", action="store_true", help="let the post-processor add its tokens"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: ids, tokens, counts")


def run(args: argparse.Namespace) -> int:
    """Print the ids of the text (or their count, or JSON); return the exit status.

    Raises `RequestError` when both a text and a file are given, and `TokenizerError`.
    """
    if args.text is not None and args.file is not None:
        raise RequestError("both a text and --file were given: give one of them")
    from falcon_h1r.reference_model import reference_model_path
    from falcon_h1r.tokenizer import Tokenizer

    tokenizer: Any = Tokenizer.from_pretrained(args.model or reference_model_path())
    text = _text(args)
    token_ids = tokenizer.encode(text, add_special_tokens=args.add_special_tokens)
    sys.stdout.write(_report(args, tokenizer, text, token_ids) + "\n")
    return 0


def _text(args: argparse.Namespace) -> str:
    if args.text is not None:
        return str(args.text)
    data = args.file.read_bytes() if args.file is not None else sys.stdin.buffer.read()
    try:
        return str(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RequestError(f"the text is not UTF-8 at byte {error.start}: convert it") from error


def _report(args: argparse.Namespace, tokenizer: Any, text: str, token_ids: list[int]) -> str:
    if args.json:
        tokens = [tokenizer.decode([i], skip_special_tokens=False) for i in token_ids]
        row = {"num_tokens": len(token_ids), "num_characters": len(text)}
        return json.dumps(row | {"token_ids": token_ids, "tokens": tokens})
    return str(len(token_ids)) if args.count else " ".join(map(str, token_ids))
