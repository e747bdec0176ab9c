"""One vocabulary of vectors: every instruction set has all of it, also those that no compiler of this machine sees."""

import re
import shutil
import subprocess
from pathlib import Path

import aarch64
import pytest

SIMD = Path(__file__).parent.parent / "csrc" / "simd"
HEADERS = [path for path in sorted(SIMD.glob("vec_*.h")) if path.name not in ("vec_math.h", "vec_trig.h")]
NAME = r"\b(?:(?:vec|ivec|mask|words)_\w+|LANES|REGISTERS|WORDS|VEC_BLOCK|VEC_REACH)\b"


def defined(path):
    """Names of the vocabulary that a header defines."""
    text = path.read_text()
    functions = re.findall(rf"^INLINE \w+ ({NAME})\(", text, re.M)
    return {*functions, *re.findall(rf"^#define ({NAME})", text, re.M), *re.findall(rf"enum {{ ({NAME})", text)}


def listed():
    """Names that vec.h's list of them has."""
    text = (SIMD / "vec.h").read_text().partition("#ifndef FNN_VEC_H")[0]
    return set(re.findall(NAME, text)) - {"vec_math", "mask_"}


def test_there_are_headers():
    assert len(HEADERS) >= 4 and len(listed()) > 60


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.stem)
def test_every_header_has_every_name(path):
    assert defined(path) == listed()


@pytest.mark.skipif(not shutil.which(aarch64.COMPILER), reason=f"no {aarch64.COMPILER}")
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_kernels_compile_for_neon(kind):
    flags, vectors = aarch64.compile_flags()
    subprocess.run([aarch64.COMPILER, *flags, *vectors["neon"], "-Werror", "-fsyntax-only",
                    SIMD.parent / "targets" / f"neon_{kind}.c"], check=True)
