"""Damage to files, by a seed: what a broken disk, a hand with an editor or another program may make of a good one."""

import random
import re
import struct

# Numbers, words and shapes that readers trip over.
_VALUES = [
    "0", "-1", "1", "3", "1e999", "-1e400", "NaN", "Infinity", "nan", "inf", "1e-320", "99999999999999999999", "null",
    "true", "false", '""', '"x"', '"NeuralSource"', '"Sersic"', '"lens.e1,e2"', '"auto"', "[]", "{}", "[[]]",
    "[1, [2]]", '"\\u0000"', '"' + "n" * 5000 + '"', '{"a": 1}', "[" * 3000, "{ profile = 3 }", "[1.0, 2.0]",
    '["x", "y"]', "1979-05-27",
]  # fmt: skip
_TOKEN = re.compile(rb'"[^"\n]*"|-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b|[\w.]+|[\[\]{}=,:]')

_CARDS = [
    "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "BITPIX", "PCOUNT", "GCOUNT", "TFIELDS", "BSCALE", "BZERO", "BLANK",
    "EXTNAME", "XTENSION", "SIMPLE", "EXTEND", "PIXSCALE", "OBJECT", "CTYPE1", "CTYPE2", "CD1_1", "CDELT1", "CRVAL1",
    "CUNIT1",
    "ZIMAGE", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZCMPTYPE", "ZBITPIX", "ZBLANK", "TFORM1", "TTYPE1", "A_ORDER", "PV1_1",
    "WCSAXES", "RADESYS", "CONTINUE", "END", "GROUPS", "LONGSTRN", "THEAP",
]  # fmt: skip
_CARD_VALUES = [
    "0", "1", "-1", "2", "3", "7", "8", "16", "-32", "-64", "64", "999", "100000", "2147483648", "1E400", "-1.0E-3",
    "NaN", "T", "F", "''", "'SCI'", "'ERR'", "'PSF'", "'IMAGE'", "'BINTABLE'", "'TABLE'", "'RICE_1'", "'GZIP_2'",
    "'HCOMPRESS_1'", "'RA---TAN'", "'RA---SIP'", "'DEC--TAN'", "'deg'", "'furlong'", "'1PB(9)'", "'\xff'", "(1, 2)", "",
]  # fmt: skip
_FLOATS = [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e38, 1e-40, 1e308]


def mutated(content: bytes, rng: random.Random, binary: bool, others: list[bytes]) -> bytes:
    """The file after one to four kinds of damage.

    Args:
        content: a file.
        rng: that chooses.
        binary: whether it is FITS, not text.
        others: files of which it may be given a piece.
    """
    own = [_card, _card, _card, _pixel, _block] if binary else [_token, _token, _token, _token_lost, _token_moved]
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        change = rng.choice([*own, *own, _bit, _cut, _lost, _doubled, _noise])
        content = change(content, rng)
    if rng.random() < 0.05:
        other = rng.choice(others)
        content = content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]
    return content


def _bit(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _lost(content: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 8, 80, 2880])
    return content[:start] + content[start + length :]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(content) + 1), rng.choice([1, 8, 80, 2880])
    return content[: start + length] + content[start:]


def _noise(content: bytes, rng: random.Random) -> bytes:
    start, noise = rng.randrange(len(content) + 1), rng.randbytes(rng.choice([1, 2, 4, 80]))
    return content[:start] + noise + content[start + len(noise) :]


def _token(content: bytes, rng: random.Random) -> bytes:
    tokens = list(_TOKEN.finditer(content))
    if not tokens:
        return content
    chosen, new = rng.choice(tokens), rng.choice(_VALUES).encode()
    if rng.random() < 0.2:
        new = rng.choice(tokens).group()
    return content[: chosen.start()] + new + content[chosen.end() :]


def _token_lost(content: bytes, rng: random.Random) -> bytes:
    tokens = list(_TOKEN.finditer(content))
    if not tokens:
        return content
    chosen = rng.choice(tokens)
    return content[: chosen.start()] + content[chosen.end() :]


def _token_moved(content: bytes, rng: random.Random) -> bytes:
    tokens = list(_TOKEN.finditer(content))
    if len(tokens) < 2:
        return content
    first, second = sorted(rng.sample(tokens, 2), key=lambda token: token.start())
    between = content[first.end() : second.start()]
    return content[: first.start()] + second.group() + between + first.group() + content[second.end() :]


def _card(content: bytes, rng: random.Random) -> bytes:
    """A header card with another keyword, or with another value."""
    cards = [i for i in range(0, len(content) - 79, 80) if content[i + 8 : i + 10] == b"= "]
    if not cards:
        return content
    start = rng.choice(cards)
    keyword, value = content[start : start + 8], content[start + 10 : start + 80]
    if rng.random() < 0.3:
        keyword = f"{rng.choice(_CARDS):8}".encode()
    if rng.random() < 0.8:
        value = f"{rng.choice(_CARD_VALUES):>20}".encode("latin1").ljust(70)[:70]
    return content[:start] + keyword + b"= " + value + content[start + 80 :]


def _pixel(content: bytes, rng: random.Random) -> bytes:
    if len(content) < 2888:
        return content
    form = rng.choice(["f", "d"])
    size = struct.calcsize(form)
    block = rng.randrange(len(content) // 2880) * 2880
    start = block + size * rng.randrange(40)
    with_value = (
        content[:start] + struct.pack(">" + form, _clipped(rng.choice(_FLOATS), form)) + content[start + size :]
    )
    return with_value[: len(content)]


def _clipped(value: float, form: str) -> float:
    return 1e38 if form == "f" and value == 1e308 else value


def _block(content: bytes, rng: random.Random) -> bytes:
    """A block of 2,880 bytes lost, doubled, or in another place."""
    blocks = [content[i : i + 2880] for i in range(0, len(content), 2880)]
    if len(blocks) < 2:
        return content
    place = rng.randrange(len(blocks))
    taken = blocks.pop(place)
    kind = rng.randrange(3)
    if kind:
        blocks[rng.randrange(len(blocks) + 1) : 0] = [taken]
    if kind == 2:
        blocks.insert(place, taken)
    return b"".join(blocks)
