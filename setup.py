"""Builds fastnn._core: one binding, the drivers compiled once, the kernels compiled once per instruction set and type.

Each target (csrc/targets/<isa>_<type>.c) gets its own flags and object file. The compiler is asked by compiling a small
program whether it knows a target's flags and OpenMP; what it lacks is left out, with a message. An object is compiled again
only when its source, a header that it includes, its flags or this file changed.

Environment: FASTNN_SANITIZE=address,undefined builds with these sanitizers; FASTNN_WERROR=1 makes warnings errors;
FASTNN_AMX=emulated computes the AMX level's instructions on AVX-512, to test that level on any CPU that has those;
FASTNN_AVX512=emulated computes AVX-512's as well, lane by lane, to test both levels on any CPU that has AVX2. Such a build takes
an emulated level only where FASTNN_ISA or a test asks for it, and has not the machine's own. FASTNN_TARGETS=avx2 leaves out all
instruction sets but those listed, with commas between, and scalar.
"""

import os
import shlex
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
AVX512 = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
# The instruction sets of each architecture, with their flags. GCC's first pass of scheduling moves loads up until
# 32 registers do not hold what is live: without it the largest register tile keeps its sums in registers.
TARGETS = {
    "x86_64": {"avx2": ["-march=x86-64-v3"], "avx512": AVX512, "amx": [*AVX512, "-mamx-tile", "-mamx-bf16"]},
    "aarch64": {"neon": ["-fno-schedule-insns"]},
}
# What GCC 12 makes of a loop over strided rows of two elements reads the rows of the next step, past the last one's end.
SCALAR = ["-fno-tree-vectorize"]
EMULATED_AMX = "-DFNN_AMX_EMULATED"
EMULATED_AVX512 = "-DFNN_AVX512_EMULATED"
OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"


class build_kernels(build_ext):
    """Compiles every source to its own object, only when something it depends on changed, then links the extension."""

    def run(self):
        super().run()
        # `python -m fastnn` in this folder finds this folder's package before an installed one: it gets the library too.
        if not self.inplace:
            self.copy_extensions_to_source()

    def build_extension(self, ext):
        if self.compiler.compiler_type != "unix":
            raise SystemExit("fastnn: needs a compiler with GCC's options (GCC or Clang)")
        flags, links = list(FLAGS), []
        if sanitizers := os.environ.get("FASTNN_SANITIZE"):
            # Lines for reports, but no variables: following those through all checks takes a third of the time to compile.
            flags += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1", "-O1"]
            called = ["--param", "asan-instrumentation-with-call-threshold=0"]  # checks as calls: a third of the time to compile
            for quicker in (called, ["-fira-region=one"]):  # registers for whole functions at once: a tenth
                flags += quicker if self.accepts(quicker) else []
            links.append(f"-fsanitize={sanitizers}")
        if os.environ.get("FASTNN_WERROR", "0") != "0":
            flags.append("-Werror")
        avx512, amx = emulated("FASTNN_AVX512"), emulated("FASTNN_AMX")
        if not self.accepts([]):
            name = self.compiler.compiler_so[0]
            raise SystemExit(f"fastnn: the C compiler {name!r} does not work; on Debian: apt-get install gcc")
        openmp = ["-fopenmp"] if self.accepts(["-fopenmp"], OPENMP_PROBE, link=True) else []
        if not openmp:
            print("fastnn: this compiler has no OpenMP: the engine will run on one thread")
        wanted = chosen(TARGETS.get(self.architecture(), {}))
        if avx512 and "avx512" in wanted:  # -O3 takes minutes, and vectors of 64 bytes have no register to be passed in
            wanted["avx512"] = [*TARGETS["x86_64"]["avx2"], "-O1", "-Wno-psabi", EMULATED_AVX512]
        if (avx512 or amx) and "amx" in wanted:
            wanted["amx"] = [*wanted["avx512"], EMULATED_AMX]
        targets = {"scalar": SCALAR} | {isa: march for isa, march in wanted.items() if self.accepts(march)}
        for isa in wanted.keys() - targets.keys():
            print(f"fastnn: this compiler does not know {' '.join(wanted[isa])}: built without the {isa} kernels")

        # The longest first, so that no core waits for one at the end.
        jobs = [(f"csrc/targets/{isa}_{t}.c", flags + march) for isa, march in targets.items() for t in ("f32", "f64")
                if (isa, t) != ("amx", "f64")]  # its matrix units are for float32 only
        # Cython's generated code is not ours to lint; it needs no optimiser either.
        plain = [f for f in flags if f not in ("-Wall", "-Wextra", "-Werror", "-O3")] + ["-O1" if sanitizers else "-O2", "-w"]
        have = [f"-DFNN_HAVE_{isa.upper()}" for isa in targets] + [EMULATED_AVX512] * avx512 + [EMULATED_AMX] * (avx512 or amx)
        for source in ext.sources:
            jobs.append((source, plain if "_core" in source else flags + openmp + have))
        with ThreadPoolExecutor(self.parallel or os.cpu_count() or 1) as pool:
            objects = list(pool.map(lambda job: self.compile(ext, *job), jobs))
        library = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, library, extra_postargs=openmp + links, build_temp=self.build_temp)

    def architecture(self):
        """What the compiler compiles for, which is not this machine's architecture where it is a cross compiler."""
        answer = subprocess.run([*self.compiler.compiler_so, "-dumpmachine"], capture_output=True, text=True).stdout
        name = answer.partition("-")[0]
        return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)

    def accepts(self, flags, program="int main(void) { return 0; }", link=False):
        """Whether the compiler takes these flags, found by compiling."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program)
            command = [*self.compiler.compiler_so, *flags, str(source), "-o", str(Path(folder, "probe"))]
            try:
                self.spawn(command if link else [*command, "-c"])
            except Exception:  # setuptools and distutils each have their own CompileError
                return False
        return True

    def compile(self, ext, source, flags):
        """Compiles one source unless its object is up to date; returns the object's path."""
        target = Path(self.build_temp, Path(source).with_suffix(".o"))
        stamp, made_from = target.with_suffix(".flags"), target.with_suffix(".d")
        compiler = [*self.compiler.compiler_so, *flags]
        text = shlex.join(compiler)  # without the folders: a fresh build environment has others, with the same headers
        if not (stamp.exists() and stamp.read_text() == text and up_to_date(target, made_from)):
            target.parent.mkdir(parents=True, exist_ok=True)
            stamp.unlink(missing_ok=True)
            folders = [f"-I{folder}" for folder in ext.include_dirs + self.include_dirs]
            self.spawn([*compiler, *folders, "-MMD", "-c", source, "-o", str(target)])
            stamp.write_text(text)
        return str(target)


def chosen(targets):
    """Those of `targets` that FASTNN_TARGETS lists; all of them where it is not set."""
    names = [name.strip() for name in os.environ.get("FASTNN_TARGETS", "").split(",") if name.strip()]
    known = ["scalar", *targets]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"fastnn: FASTNN_TARGETS names {', '.join(unknown)}, but here only {', '.join(known)} may be named")
    if "amx" in names:
        names.append("avx512")  # which has most of its kernels
    return {isa: flags for isa, flags in targets.items() if not names or isa in names}


def emulated(variable):
    """Whether an environment variable asks for a level to be emulated."""
    if (value := os.environ.get(variable, "")) not in ("", "emulated"):
        raise SystemExit(f"fastnn: {variable} is {value!r}, but must be 'emulated' or not set")
    return value == "emulated"


def up_to_date(target, made_from):
    """Whether an object is newer than this file and all it was made from, listed by the compiler: "object: source header ..."."""
    if not (target.exists() and made_from.exists()):
        return False
    files = shlex.split(made_from.read_text().replace("\\\n", " ").partition(":")[2])
    return all(os.path.exists(f) and os.path.getmtime(f) < target.stat().st_mtime for f in [__file__, *files])


core = Extension(
    "fastnn._core",
    sources=["fastnn/_core.pyx", *sorted(glob("csrc/*.c")), *sorted(glob("csrc/ops/*.c"))],
    include_dirs=["csrc"],
)
# Always linked anew: build_kernels itself knows which objects are stale.
setup(
    ext_modules=cythonize([core], language_level=3),
    cmdclass={"build_ext": build_kernels},
    options={"build_ext": {"force": True}},
)
