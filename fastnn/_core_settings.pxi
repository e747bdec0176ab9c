# Threads, instruction sets, memory; part of _core.pyx.

def get_num_threads():
    """How many threads parallel loops use."""
    return fnn_get_num_threads()


def set_num_threads(n):
    """Sets how many threads parallel loops use; results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1, at most 1024.
    """
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 1 <= n.__index__() <= 1024:
        raise ValueError(f"set_num_threads: n is {n!r}, but must be an integer between 1 and 1024")
    bump_settings()
    fnn_set_num_threads(n)


def threads_reason():
    """Where the number of threads came from."""
    n = fnn_get_num_threads()
    return fnn_threads_reason().decode() if n == default_threads else f"set_num_threads({n})"


def set_thread_policy(policy):
    """For tests: "force" opens a parallel region for every loop of two chunks, "auto" follows the cost model."""
    if policy not in ("auto", "force"):
        raise ValueError(f"set_thread_policy: policy is {policy!r}, but must be 'auto' or 'force'")
    bump_settings()
    fnn_set_thread_policy(policy == "force")


def last_workers():
    """How many threads took part in the last parallel region."""
    return fnn_last_workers()


def has_openmp():
    """Whether this build is parallel."""
    return bool(fnn_has_openmp())


def get_isa():
    """The instruction set whose kernels run."""
    return fnn_isa_name().decode()


def set_isa(name):
    """Chooses the instruction set whose kernels run: one of `available_isas()`. Refused while another thread computes: what a call
    has planned is for its own instruction set."""
    if not isinstance(name, str) or name not in available_isas():
        raise ValueError(f"set_isa: name is {name!r}, but this machine and build have {', '.join(available_isas())}")
    if fnn_busy:
        raise RuntimeError("set_isa: another thread computes; set it before, or when that has ended")
    bump_settings()
    fnn_set_isa(name.encode())


def forget_other_threads():
    """In a forked child: what other threads computed when it was made never ends here."""
    global fnn_busy
    fnn_busy = 0


os.register_at_fork(after_in_child=forget_other_threads)


def isa_reason():
    """Why this instruction set runs."""
    return fnn_isa_reason().decode()


def available_isas():
    """Instruction sets that this build has and this machine can run, least first."""
    return tuple([fnn_isa_names(isa).decode() for isa in range(FNN_NUM_ISAS) if fnn_isa_available(isa)])


PRECISIONS = ("highest", "high", "medium")


def set_float32_matmul_precision(precision):
    """Chooses what products of float32 numbers are made of where the CPU has bfloat16 matrix units (level ``amx``).

    Linear layers, matrix products, convolutions of one group and attention take part, forward and backward, where they
    are predicted to gain. On other levels all three are float32.
    A call with an infinity or NaN in it is made of float32 multiply-adds; of attention those queries of a head, or
    backward those keys, that a thread takes at a time.

    Parameters
    ----------
    precision : {"highest", "high", "medium"}
        "highest" (default): each factor as three bfloat16 numbers, six products. Where nonzero factors are between
        2**-100 and 2**127 and their products above 2**-100, the error is about half that of float32 multiply-adds, and
        at most 1.5 times it where single products outweigh their sums. "high": two bfloat16 numbers, three products: a
        relative error of about 2**-16 a product. "medium": one, 2**-8.

    Raises
    ------
    ValueError
        For anything else.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"set_float32_matmul_precision: precision is {precision!r}, but must be 'highest', 'high' or "
                         "'medium'")
    bump_settings()
    fnn_set_matmul_precision(PRECISIONS.index(precision))


def get_float32_matmul_precision():
    """What products of float32 numbers are made of.

    Returns
    -------
    str
        "highest", "high" or "medium".
    """
    return PRECISIONS[fnn_matmul_precision()]


CONV_ALGORITHMS = ("auto", "direct", "winograd", "parts")


def set_conv_algorithm(algorithm):
    """Chooses how float32 convolutions are computed, forward and backward.

    Those with 3 x 3 windows, stride 1, dilation 1 and one group can take tiles of 4 x 4 outputs through Winograd's
    transforms, which needs a quarter of the multiplications; so can, with two fifths of them, those whose windows are twice
    their strides of at most 4, transposed ones too, and gradients of inputs whose windows are longer than their strides.
    Windows of 5 x 5 and up to 32 input channels can take tiles of 2 x 2 outputs, with 36 multiplications for 100.
    Where the CPU has bfloat16 matrix units (level ``amx``),
    those with one group, strides up to 4 and windows of up to 49 positions can be sums of products of bfloat16 parts, as
    many as `set_float32_matmul_precision` says. All others, and all in float64, are sums of products throughout.
    A call in which an infinity or NaN turns up is made of float32 multiply-adds.

    Parameters
    ----------
    algorithm : {"auto", "direct", "winograd", "parts"}
        "auto" (default): whichever is predicted to be fastest, from shapes, instruction set and precision alone. On
        normally distributed numbers the root of the mean square error of Winograd's way is 2 to 4 times that of the
        direct sum, and tests hold it to 6. "direct": never Winograd's way. "winograd": that wherever it is possible,
        also on maps too small for its bound; at precision "highest", where there are matrix units, they multiply
        the transforms of 3 x 3 windows. "parts": products of bfloat16 parts wherever they are possible; elsewhere
        as "direct".

    Raises
    ------
    ValueError
        For anything else.

    References
    ----------
    A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.
    """
    if algorithm not in CONV_ALGORITHMS:
        raise ValueError(f"set_conv_algorithm: algorithm is {algorithm!r}, but must be 'auto', 'direct', "
                         "'winograd' or 'parts'")
    bump_settings()
    fnn_set_conv_algorithm(CONV_ALGORITHMS.index(algorithm))


def get_conv_algorithm():
    """How float32 convolutions are computed.

    Returns
    -------
    str
        "auto", "direct", "winograd" or "parts".
    """
    return CONV_ALGORITHMS[fnn_get_conv_algorithm()]


def kernel_names():
    """The micro-kernels each instruction set provides."""
    return tuple([fnn_kernel_name(k).decode() for k in range(fnn_num_kernels())])


def memory_stats():
    """Bytes in use, bytes cached for reuse, the peak of bytes in use, and how many blocks came from the system."""
    cdef fnn_memory_stats stats
    fnn_memory_get_stats(&stats)
    return {"in_use": stats.in_use, "cached": stats.cached, "peak": stats.peak, "system_calls": stats.system_calls}


def trim_memory():
    """Gives cached blocks back to the system."""
    fnn_memory_trim()


def reset_peak_memory():
    """Makes the bytes now in use the new peak."""
    fnn_memory_reset_peak()


def philox(uint64_t seed, uint64_t number, uint64_t block):
    """Four 32-bit words of the counter-based generator, for tests."""
    cdef uint32_t[4] words
    fnn_philox(seed, number, block, words)
    return words[0], words[1], words[2], words[3]
