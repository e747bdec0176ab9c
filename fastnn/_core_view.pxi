# Views: other shapes and steps on the same memory, put on the tape in one call; part of _core.pyx.
#
# A rule is what `record` takes: ``rule(node, dview)`` gives the gradient. Its context is made only where a gradient flows. A view is
# made from an alias that is taken first: what turns an argument into an integer may give the tensor itself other memory.

cdef extern from "Python.h":
    int PySlice_Unpack(object, Py_ssize_t *, Py_ssize_t *, Py_ssize_t *) except -1
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t PySlice_AdjustIndices(Py_ssize_t, Py_ssize_t *, Py_ssize_t *, Py_ssize_t)


cdef TensorBase tensor_of(str name, value):
    """`value`, which must be a tensor: `checks.a_tensor`, that only says what is wrong."""
    if not isinstance(value, TensorBase):
        from .checks import a_tensor
        a_tensor(name, value)
    return <TensorBase>value


cdef Py_ssize_t integer_of(str name, str argument, value) except? -1:
    """`checks.integer`, which is asked where `value` is not simply an int of 64 bits."""
    if type(value) is int:
        try:
            return value
        except OverflowError:
            pass
    from .checks import integer
    return integer(name, argument, value)


cdef int axis_of(str name, dim, int rank) except -1:
    cdef Py_ssize_t d = integer_of(name, "dim", dim)
    if not -rank <= d < rank:
        allowed = f"a tensor of {rank} axes has dims {-rank} to {rank - 1}" if rank else "the tensor has no axes"
        raise IndexError(f"{name}: dim is {dim}, but {allowed}")
    return d + rank if d < 0 else d


def axis(str name not None, dim, int rank):
    """`dim` counted from the front; an error that names the operation if there is no such axis."""
    return axis_of(name, dim, rank)


cdef inline bint flows(TensorBase x):
    """Whether what is made of `x` takes a gradient."""
    return fnn_grad_enabled and x._requires_grad


cdef inline TensorBase noted(rule, TensorBase x, TensorBase view, context):
    """`view`, one of `x`, as `record` leaves it."""
    if fnn_grad_enabled:
        note_view(view, x)
        if x._requires_grad:
            attach(new_node(rule, (x,), (view,), (), context), view)
    return view


cdef int append_axis(str name, TensorBase view, Py_ssize_t extent, Py_ssize_t stride) except -1:
    if view.desc.rank == FNN_MAX_RANK:
        raise ValueError(f"{name}: a tensor has at most {FNN_MAX_RANK} axes")
    view.desc.shape[view.desc.rank] = extent
    view.desc.stride[view.desc.rank] = stride
    view.desc.rank += 1
    return 0


cdef int check_bounds(str name, TensorBase view) except -1:
    cdef Py_ssize_t low, high
    if not fnn_bounds(&view.desc, &low, &high):
        raise ValueError(f"{name}: shape {view.shape} is too large")
    return 0


# ---- permutations ----------------------------------------------------------------------------------------------------


cdef TensorBase in_order(rule, TensorBase x, TensorBase view, int *order):
    cdef fnn_tensor whole = view.desc
    cdef int d, rank = whole.rank
    for d in range(rank):
        view.desc.shape[d] = whole.shape[order[d]]
        view.desc.stride[d] = whole.stride[order[d]]
    return noted(rule, x, view, [order[d] for d in range(rank)] if flows(x) else None)


def permuted(rule, input, dims not None):
    """The view of a tensor whose axis d is its axis ``dims[d]``; the rule's context is this order, counted from the front."""
    cdef TensorBase x = tensor_of("permute", input), view = alias(x)
    cdef int[8] order
    cdef int seen = 0, rank = view.desc.rank, d = 0
    for dim in dims:
        if d < rank:
            order[d] = axis_of("permute", dim, rank)
            seen |= 1 << order[d]
        else:
            axis_of("permute", dim, rank)
        d += 1
    if d != rank or seen != (1 << rank) - 1:
        raise ValueError(f"permute: dims is {tuple(dims)}, but must name each of the {rank} axes once")
    return in_order(rule, x, view, order)


def swapped(rule, str name not None, input, dim0, dim1):
    """The view of a tensor with two axes exchanged; context as that of `permuted`."""
    cdef TensorBase x = tensor_of(name, input), view = alias(x)
    cdef int rank = view.desc.rank, first = axis_of(name, dim0, rank), second = axis_of(name, dim1, rank), d
    cdef int[8] order
    for d in range(rank):
        order[d] = d
    order[first], order[second] = second, first
    return in_order(rule, x, view, order)


# ---- reshaping -------------------------------------------------------------------------------------------------------


cdef int resolve(str name, shape, Py_ssize_t *extents, Py_ssize_t numel) except -1:
    """`shape` with its -1, if any, replaced by what is left of `numel`; returns how many extents there are."""
    cdef Py_ssize_t known = 1, n
    cdef int k, rank = 0, unknown = -1
    cdef bint is_sound = True, fits = True
    for value in shape:
        n = integer_of(name, "an extent", value)
        if rank == FNN_MAX_RANK:
            raise ValueError(f"{name}: shape {tuple(shape)} has {len(shape)} axes, but at most {FNN_MAX_RANK} are allowed")
        is_sound = is_sound and n >= -1 and not (n == -1 and unknown >= 0)
        if n == -1:
            unknown = rank
        extents[rank] = n
        rank += 1
    if not is_sound:
        raise ValueError(f"{name}: shape is {tuple(shape)}, but may hold one -1 and no other negative extent")
    for k in range(rank):
        if extents[k] == 0:
            known = 0
    for k in range(rank):
        if k != unknown and known:
            fits = fits and known <= PY_SSIZE_T_MAX // extents[k]
            known = known * extents[k] if fits else 1
    if fits and unknown >= 0 and known:
        extents[unknown] = numel // known
        known *= extents[unknown]
    if not fits or known != numel or (unknown >= 0 and extents[unknown] == -1):
        raise ValueError(f"{name}: shape {tuple(shape)} does not hold the tensor's {numel} elements")
    return rank


def resolved(str name not None, shape not None, Py_ssize_t numel):
    """`shape` as a list, with its -1, if any, replaced by what is left of `numel` elements."""
    cdef Py_ssize_t[8] extents
    cdef int d, rank = resolve(name, shape, extents, numel)
    return [extents[d] for d in range(rank)]


cdef bint lay_out(const fnn_tensor *x, int rank, const Py_ssize_t *extents, fnn_tensor *view):
    """Gives `view` extents that hold as many elements as `x`, and steps that walk those in the same logical order; whether there
    are such steps."""
    # Runs of axes that lie as one: each new axis must be cut from a single run.
    cdef Py_ssize_t[8] old, steps
    cdef Py_ssize_t run = 1, step = 1, n
    cdef int d, k = 0
    cdef bint is_empty = fnn_numel(x) == 0
    view.rank = rank
    for d in range(x.rank):
        if x.shape[d] != 1:
            old[k], steps[k] = x.shape[d], x.stride[d]
            k += 1
    k -= 1
    if k >= 0:
        run, step = old[k], steps[k]
    for d in range(rank - 1, -1, -1):
        n = view.shape[d] = extents[d]
        view.stride[d] = 1
        if n == 1 or is_empty:
            continue
        if run == 1:
            k -= 1
            run, step = old[k], steps[k]
        while run % n or run < n:
            if k == 0 or steps[k - 1] != step * run:
                return False
            k -= 1
            run *= old[k]
        view.stride[d] = step
        step *= n
        run //= n
    return True


cdef TensorBase in_shape(rule, TensorBase x, TensorBase whole, int rank, const Py_ssize_t *extents):
    """The elements of `x`, of which `whole` is an alias, under a shape that holds them; a view where there is one, otherwise a copy."""
    cdef TensorBase view = alias(whole)
    if not lay_out(&whole.desc, rank, extents, &view.desc):
        whole = launch.contiguous(whole)
        view = alias(whole)
        lay_out(&whole.desc, rank, extents, &view.desc)
    check_bounds("reshape", view)
    return noted(rule, x, view, x.shape if flows(x) else None)


def reshaped(rule, input, shape not None):
    """The elements of a tensor in logical (C) order under another shape, where one extent may be -1; a view where the layout
    allows it. The rule's context is the shape of `input`."""
    cdef TensorBase x = tensor_of("reshape", input), whole = alias(x)
    cdef Py_ssize_t[8] extents
    return in_shape(rule, x, whole, resolve("reshape", shape, extents, fnn_numel(&whole.desc)), extents)


def flattened(rule, input, start_dim, end_dim):
    """`reshaped`, with the axes of a tensor, which has some, from one to another, both included, as one."""
    cdef TensorBase x = tensor_of("flatten", input), whole = alias(x)
    cdef int rank = whole.desc.rank, first = axis_of("flatten", start_dim, rank), last = axis_of("flatten", end_dim, rank), d
    cdef Py_ssize_t[8] extents
    if first > last:
        raise ValueError(f"flatten: start_dim {start_dim} lies behind end_dim {end_dim}")
    for d in range(rank):
        if d <= first or d > last:
            extents[d if d <= first else d - last + first] = whole.desc.shape[d]
        else:
            extents[first] *= whole.desc.shape[d]
    return in_shape(rule, x, whole, rank - last + first, extents)


def unsqueezed(rule, input, dim):
    """The view of a tensor with an axis of extent 1 put in as axis `dim`; context as that of `reshaped`."""
    cdef TensorBase x = tensor_of("unsqueeze", input), view = alias(x)
    cdef fnn_tensor whole = view.desc
    cdef int place = axis_of("unsqueeze", dim, whole.rank + 1), d
    view.desc.rank = place
    append_axis("unsqueeze", view, 1, 1)
    for d in range(place, whole.rank):
        append_axis("unsqueeze", view, whole.shape[d], whole.stride[d])
    return noted(rule, x, view, x.shape if flows(x) else None)


def expanded(rule, input, shape not None):
    """The view of a tensor with axes of extent 1, or new ones in front, repeated; -1 keeps an extent. Context as of `reshaped`."""
    cdef TensorBase x = tensor_of("expand", input), view = alias(x)
    cdef fnn_tensor whole = view.desc
    cdef int new = len(shape) - whole.rank, d = 0
    cdef Py_ssize_t n, have, step
    if new < 0:
        raise ValueError(f"expand: shape {tuple(shape)} has fewer axes than the tensor's shape {x.shape}")
    view.desc.rank = 0
    for value in shape:
        n = integer_of("expand", "an extent", value)
        have = 1 if d < new else whole.shape[d - new]
        step = 0 if d < new else whole.stride[d - new]
        if n == -1 and d >= new:
            n = have
        if n != have and have != 1 or n < 0:
            raise ValueError(f"expand: shape {x.shape} cannot be expanded to {tuple(shape)}")
        append_axis("expand", view, n, step if n == have else 0)
        d += 1
    check_bounds("expand", view)
    return noted(rule, x, view, x.shape if flows(x) else None)


# ---- slices ----------------------------------------------------------------------------------------------------------


cdef bint is_simple(part):
    return type(part) is int or type(part) is slice or part is None or part is Ellipsis


cdef int take_slice(TensorBase view, part, Py_ssize_t extent, Py_ssize_t stride) except -1:
    """Appends an axis cut by a slice, and moves the view's beginning to the slice's first place."""
    cdef Py_ssize_t start, stop, step, n
    PySlice_Unpack(part, &start, &stop, &step)
    n = PySlice_AdjustIndices(extent, &start, &stop, step)
    append_axis("index", view, n, stride * step if n > 1 else stride)  # a step that nobody takes may be of any size
    if n:
        view.desc.data = <char *>view.desc.data + start * stride * <Py_ssize_t>fnn_itemsize(view.desc.dtype)
    return 0


cdef int take_place(TensorBase view, part, int d, Py_ssize_t extent, Py_ssize_t stride) except -1:
    """Moves the view's beginning to a place along axis d, which is dropped."""
    cdef Py_ssize_t k = integer_of("index", "an index", part)
    if not -extent <= k < extent:
        raise IndexError(f"index: {k} is out of range for axis {d} of extent {extent}")
    view.desc.data = <char *>view.desc.data + (k + extent if k < 0 else k) * stride * <Py_ssize_t>fnn_itemsize(view.desc.dtype)
    return 0


def with_ellipsis(tuple key not None, int used, int ndim):
    """`key`, whose parts use so many of a tensor's axes, with an Ellipsis for the others: at its end where it has none."""
    cdef int count = 0
    if used > ndim:
        raise IndexError(f"index: {used} indices for a tensor of {ndim} axes, but there must be at most one for each")
    for part in key:
        count += part is Ellipsis
    if count > 1:
        raise IndexError(f"index: Ellipsis stands {count} times, but must stand at most once")
    return key if count else (*key, Ellipsis)


def sliced(rule, input, key):
    """``input[key]`` for a key of ints, slices, None and Ellipsis, a tuple of them or one: a view. None where the key holds
    anything else. The rule's context is (the shape of `input`, the key with an Ellipsis)."""
    cdef TensorBase x = tensor_of("slice_view", input), view
    cdef tuple parts = key if type(key) is tuple else (key,)
    cdef fnn_tensor whole = x.desc
    cdef int used = 0, d = 0, rest
    for part in parts:
        if not is_simple(part):
            return None
        used += part is not None and part is not Ellipsis
    view = alias(x)
    parts = with_ellipsis(parts, used, whole.rank)
    view.desc.rank = 0
    for part in parts:
        if part is None:
            append_axis("index", view, 1, 1)
        elif part is Ellipsis:
            for rest in range(whole.rank - used):
                append_axis("index", view, whole.shape[d], whole.stride[d])
                d += 1
        elif type(part) is slice:
            take_slice(view, part, whole.shape[d], whole.stride[d])
            d += 1
        else:
            take_place(view, part, d, whole.shape[d], whole.stride[d])
            d += 1
    return noted(rule, x, view, (x.shape, parts) if flows(x) else None)


cdef TensorBase part_of(rule, TensorBase x, int dim, Py_ssize_t start, Py_ssize_t length):
    """The view of `length` places along an axis, or without it where that is -1; `x` has them."""
    cdef TensorBase view = alias(x)
    cdef int d
    if length:
        view.desc.data = <char *>view.desc.data + start * x.desc.stride[dim] * <Py_ssize_t>fnn_itemsize(x.desc.dtype)
    if length >= 0:
        view.desc.shape[dim] = length
    else:
        view.desc.rank -= 1
        for d in range(dim, view.desc.rank):
            view.desc.shape[d], view.desc.stride[d] = x.desc.shape[d + 1], x.desc.stride[d + 1]
    if not flows(x):
        return noted(rule, x, view, None)
    key = (*(slice(None),) * dim, start if length < 0 else slice(start, start + length), Ellipsis)
    return noted(rule, x, view, (x.shape, key))


def narrowed(rule, TensorBase x not None, int dim, Py_ssize_t start, Py_ssize_t length):
    """The view of some places along axis `dim`, counted from the front; context as that of `sliced`."""
    if not (0 <= dim < x.desc.rank and length >= 0 and 0 <= start <= x.desc.shape[dim] - length):
        raise IndexError(f"narrowed: axis {dim} of shape {x.shape} has no places {start} to {start} + {length}")
    return part_of(rule, x, dim, start, length)


def parts(rule, TensorBase x not None, int dim, sizes):
    """Views that follow one another along axis `dim`, counted from the front: of the extents `sizes`, which add up to the axis'; of
    one extent, an int above 0, but for the last, which may be shorter; or, with None, of each place, without the axis. Context as
    that of `sliced`."""
    cdef Py_ssize_t start = 0, n, extent
    if not 0 <= dim < x.desc.rank:
        raise IndexError(f"parts: shape {x.shape} has no axis {dim}")
    extent = x.desc.shape[dim]
    if type(sizes) is int and sizes < 1:
        raise ValueError(f"parts: {sizes} is no extent of parts")
    if sizes is None:
        return tuple([part_of(rule, x, dim, start, -1) for start in range(extent)])
    if type(sizes) is int:
        n = sizes if sizes < extent else extent
        return tuple([part_of(rule, x, dim, start, min(n, extent - start)) for start in range(0, extent, n)] if extent
                     else [part_of(rule, x, dim, 0, 0)])
    found = []
    for value in sizes:
        n = value
        found.append(narrowed(rule, x, dim, start, n))
        start += n
    return tuple(found)


# ---- joining ---------------------------------------------------------------------------------------------------------


def are_alike(tensors):
    """Whether a list or tuple holds tensors only, at least one, of one dtype and number of axes."""
    cdef TensorBase t, first = None
    if type(tensors) is not list and type(tensors) is not tuple:
        return False
    for value in tensors:
        if not isinstance(value, TensorBase):
            return False
        t = value
        if first is None:
            first = t
        if t.desc.dtype != first.desc.dtype or t.desc.rank != first.desc.rank:
            return False
    return first is not None


def joined(tuple tensors not None, int dim):
    """Tensors that are alike one behind the other along axis `dim`, counted from the front, off the tape, and their extents along it.
    The result of four axes lies in rows where one of them does so and none lies channels last."""
    cdef TensorBase t, first, part, result = new_tensor()
    cdef fnn_tensor whole
    cdef int d, in_rows = 0, channels_last = 0
    cdef Py_ssize_t start = 0
    cdef list sizes = []
    if not are_alike(tensors) or not 0 <= dim < (<TensorBase>tensors[0]).desc.rank:
        raise ValueError(f"joined: {len(tensors)} tensors are not alike, or have no axis {dim}")
    first = tensors[0]
    whole = first.desc
    whole.shape[dim] = 0
    for t in tensors:
        for d in range(whole.rank):
            if d != dim and t.desc.shape[d] != whole.shape[d]:
                raise ValueError(f"cat: shapes {first.shape} and {t.shape} differ in another axis than dim {dim}, but must not")
        if t.desc.shape[dim] > PY_SSIZE_T_MAX - whole.shape[dim]:
            raise ValueError(f"cat: the tensors are too large together along dim {dim}")
        sizes.append(t.desc.shape[dim])
        whole.shape[dim] += t.desc.shape[dim]
        in_rows |= fnn_lies_in_rows(&t.desc) > 0
        channels_last |= not fnn_is_contiguous(&t.desc) and fnn_is_channels_last(&t.desc)
    if in_rows and not channels_last:
        fnn_set_shape_contiguous(&result.desc, whole.dtype, whole.rank, whole.shape)
    else:
        fnn_set_shape(&result.desc, whole.dtype, whole.rank, whole.shape)
    allocate(result)
    for t in tensors:
        part = part_of(None, result, dim, start, t.desc.shape[dim])
        start += t.desc.shape[dim]
        launch.copy(t, dtype=-1, out=part)
    return result, sizes
