"""Items of BIG-Bench-Hard that a generator could draw by chance, as digests of their keys.

Truth tables, short walks and short bracket sequences are few, so the generators meet real items.
Those that are known here are neither trained on nor used as held-out problems. Not the items are
kept, only 48-bit digests of their wording-free keys (`Problem.keys`).
"""

from hashlib import blake2b

_DIGEST_TEXT = """
022f1f4ac994 050b44320b1d 0641afab0ed8 09e5a3909afc 0a0bc5c37421 104544ff9ad7 10c0000c1836
1161fff5639d 121c7ae4baa1 16e35ce4ea0d 17749ac512de 1f6e905fa2ff 210b1f521df4 2122ceabe673
2626e0d15ad4 2ad650a30f88 2cd330099df0 2d6ad65ad1c0 321915a7f186 334672013d24 339b24503505
33aea19fe6cf 39d994bb6631 3a682109a50a 3b6aaab89591 3c30d4b56c44 3ed9552585e8 3f6bd4810dd0
40af2f03449b 4148ef4ec14e 43c568f25e6b 43e761e53282 4419fe0f4432 452dad3d1875 45b6723366d6
45c1eab998a0 483b1f9823b8 4952ccf38bee 4a6635f7cd91 4ba5073f2674 4d1ba2551178 4e06439b747c
50ea61867660 56271ed4466f 56b8d9134b5e 5ec21b77cba6 5f42ead55eaf 5fbde505e248 60b0785f171d
6227e98db2c4 62d474110a22 6506406c9eaf 662c41a6a1f2 6cabd3027403 6ce1010f3dd6 6d7f38dbfce0
6e3400115204 6e91c7ebcd61 6fdf5203204d 73fd7e8604a6 74b96944e354 76aa970343f1 7c3a7b93ec02
7e70ee1fc6ea 7e837d0c5b44 8039a07f7df6 835482f7b151 85460a3ff8dd 884a131b8298 8a04da7c3249
8a89985f52e2 8a9529a0fb0a 8ab7d2cc3fe3 8af240bdff3a 8b81dcf2974f 8c6d652d2b25 8c9779cadedd
8cbfed86a51d 8f00a2d24ff8 92aa8f166f9c 966a396f32da 984f9b6e653e 9a9927bd5491 9e86ea853733
9f2e3aa4c47a a2938ed2801c a7b60262b8b5 a8dee976a986 a9d8b0477311 ac56ab6bf2e1 ae966e01e2a2
aea6bc91bea8 b2988c6207ea b49ed6e661ac b9dc2fbfbfab bdf343731572 bfadd27a7001 c293aec17d28
c305fefd33ab c51e0d909a5a cd027a67184c cdb9f138dfe6 ce80e645d06a d12bee65eba1 d8c94cd254e1
d9e4ca4d2c3d da83a2eb35d8 dbe3a33becd2 dfa59b4f2071 e46ac276f33e e89edfcf711b e8d1a9cc3351
ed345f40e949 ed7456a38f0b edc3367e1383 f1b8b21737ce f25461f5bd04 f3b4f5bda762 f6b99675834a
f7d506ecfee0 f8db2cb9cb9a faae30996a5a fabb183e50e9 fc659c94b85b ffcc451921b0
"""
DIGESTS = frozenset(_DIGEST_TEXT.split())


def digest(key: str) -> str:
    """48 bits of BLAKE2b as hexadecimal digits."""
    return blake2b(key.encode(), digest_size=6).hexdigest()


def is_benchmark_key(key: str) -> bool:
    """Whether the key is that of a known item (or collides with one, once in 10^12)."""
    return digest(key) in DIGESTS
