"""Builds fastnn._core: one binding, the drivers compiled once, the kernels compiled once per instruction set and type.

Each target (csrc/targets/<isa>_<type>.c) gets its own flags and object file. The compiler is asked by compiling a small
program whether it knows a target's flags and OpenMP; what it lacks is left out, with a message.

Environment: FASTNN_SANITIZE=address,undefined builds with these sanitizers; FASTNN_WERROR=1 makes warnings errors.
"""

import os
import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
TARGETS = {"scalar": []}
if IS_X86:
    TARGETS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}


class build_kernels(build_ext):
    """Compiles every source to its own object, only when it or a header changed, then links the extension."""

    def build_extension(self, ext):
        flags, links = list(FLAGS), []
        if sanitizers := os.environ.get("FASTNN_SANITIZE"):
            flags += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1"]
            links.append(f"-fsanitize={sanitizers}")
        if os.environ.get("FASTNN_WERROR"):
            flags.append("-Werror")
        if self.accepts(["-fopenmp"], "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }", link=True):
            openmp = ["-fopenmp"]
        else:
            openmp = []
            print("fastnn: this compiler has no OpenMP: the engine will run on one thread")
        targets = {isa: march for isa, march in TARGETS.items() if not march or self.accepts(march)}
        for isa in TARGETS.keys() - targets.keys():
            print(f"fastnn: this compiler does not know {' '.join(TARGETS[isa])}: built without the {isa} kernels")

        have = [f"-DFNN_HAVE_{isa.upper()}" for isa in targets]
        jobs = [(source, flags + openmp + have) for source in ext.sources if source.endswith(".c") and "_core" not in source]
        jobs += [(f"csrc/targets/{isa}_{t}.c", flags + march) for isa, march in targets.items() for t in ("f32", "f64")]
        binding = [s for s in ext.sources if "_core" in s]
        # Cython's generated code is not ours to lint; it needs no optimiser either.
        plain = [f for f in flags if f not in ("-Wall", "-Wextra", "-Werror", "-O3")] + ["-O2", "-w"]
        jobs += [(source, plain) for source in binding]
        with ThreadPoolExecutor(self.parallel or os.cpu_count() or 1) as pool:
            objects = list(pool.map(lambda job: self.compile(ext, *job), jobs))
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=openmp + links, build_temp=self.build_temp
        )

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
        """Compiles one source unless its object is newer than it, this file and all headers; returns the object's path."""
        target = Path(self.build_temp, Path(source).with_suffix(".o"))
        stamp = target.with_suffix(".flags")
        command = [*self.compiler.compiler_so, *flags, *(f"-I{d}" for d in ext.include_dirs + self.include_dirs), "-c", source]
        text = " ".join(command)
        newest = max(os.path.getmtime(f) for f in [source, __file__, *ext.depends])
        if target.exists() and target.stat().st_mtime > newest and stamp.exists() and stamp.read_text() == text:
            return str(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.spawn([*command, "-o", str(target)])
        stamp.write_text(text)
        return str(target)


core = Extension(
    "fastnn._core",
    sources=["fastnn/_core.pyx", *sorted(glob("csrc/*.c")), *sorted(glob("csrc/ops/*.c"))],
    depends=sorted(glob("csrc/**/*.h", recursive=True) + glob("csrc/*.def") + glob("csrc/targets/*.c")),
    include_dirs=["csrc"],
)
# Always linked anew: build_kernels itself knows which objects are stale.
setup(
    ext_modules=cythonize([core], language_level=3),
    cmdclass={"build_ext": build_kernels},
    options={"build_ext": {"force": True}},
)
