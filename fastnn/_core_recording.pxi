# What a recorded step is told: settings, layers, what cannot be replayed; part of _core.pyx.

cdef int settings = 0
cdef uint64_t toggles = 0


def bump_settings():
    """Tells captured programs that something they were recorded under has changed for good."""
    global settings
    settings += 1


def toggle_setting(owner):
    """Tells captured programs that `owner` switched between two states (training and evaluation); switching back undoes it."""
    global toggles
    toggles ^= (<uint64_t>id(owner) | 1) * 0x9E3779B97F4A7C15ULL


def settings_version():
    """Stands for all settings: threads, instruction set, modes of modules, hooks, which parameters there are and which are
    trained."""
    return settings, toggles


def sharing(list inputs not None):
    """Which of the tensors are one stretch of memory: pairs of numbers, of the first and a later one."""
    cdef dict first = {}
    cdef list pairs = []
    cdef int k
    for k in range(len(inputs)):
        number = first.setdefault(<size_t>(<TensorBase?>inputs[k]).desc.data, k)
        if number != k and (<TensorBase>inputs[number]).storage is (<TensorBase>inputs[k]).storage:
            pairs.append((number, k))
    return tuple(pairs)


def is_recording():
    """Whether this thread's launches are being recorded."""
    return fnn_recording != NULL


def note_change(str counted=None):
    """Tells captured programs that an object they were recorded with has another attribute; not what a step or a layer keeps for
    itself while it runs. `counted`: name of an attribute that is a number or text, which such a step would read the next time."""
    if fnn_recording != NULL:
        if counted is not None:
            forbid(f"the step itself changes {counted}, which replays would not", False)
    elif fnn_depth == 0:
        bump_settings()


cdef bint is_same_view(TensorBase a, TensorBase b):
    """Whether both show the same elements of one storage."""
    cdef int d
    for d in range(a.desc.rank):
        if a.desc.stride[d] != b.desc.stride[d]:
            return False
    return a.desc.data == b.desc.data and a.desc.dtype == b.desc.dtype and fnn_same_shape(&a.desc, &b.desc)


cdef Storage copy_of(Storage storage):
    """The same bytes in memory of their own."""
    cdef Storage copy = new_storage(storage.nbytes)
    memcpy(copy.start, storage.start, storage.nbytes)
    return copy


cdef int note_saved(outputs, set serials) except -1:
    """Adds the serials of what is alive only because the graphs of `outputs` saved it."""
    cdef Node node
    cdef set seen = set()
    cdef list left = [(<TensorBase>value).node for value in outputs]
    while left:
        value = left.pop()
        if not isinstance(value, Node) or value in seen:
            continue
        seen.add(value)
        node = value
        left += node.edges or ()
        for saved in node._saved or ():
            if saved is not None:
                serials.add((<TensorBase>saved).storage.serial)
    return 0


cdef object forgotten(list watched):
    """The shape of a tensor that a step found when it was recorded and that only its program still holds, since other memory has taken
    its place (state that Python keeps, a parameter, an optimiser's tensors); None if there is none. `watched`: see Program."""
    cdef Py_ssize_t own
    cdef Storage storage
    cdef list entry, tensors
    for entry in watched:
        tensors = <list>entry[2]
        own = entry[1]
        for t in tensors:
            own += Py_REFCNT(t) <= 3  # of a view that nobody else has: the guard, this list and the loop
        storage = entry[0]
        if Py_REFCNT(storage) <= own + 1:
            return tensors[0].shape
    return None


def is_put_off():
    """Whether this thread's launches are only recorded, to run when the step has ended."""
    return fnn_recording != NULL and (<Program>fnn_recording).is_put_off


cdef int forbid(str reason, bint meets_memory=True) except -1:
    """While recording: what is about to happen cannot be replayed. Keeps the first such reason, with the caller's file and line;
    launches put off until now run before Python meets the memory."""
    cdef Program program = <Program>fnn_recording
    if program.obstacle is None:
        package = os.path.dirname(__file__)
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_filename.startswith(package):
            frame = frame.f_back
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "fastnn"
        program.obstacle = f"{reason} ({where})"
    if meets_memory:
        program.catch_up()
    return 0


def depends_on_elements(str what):
    """While recording: the shape of a result depends on elements, so the step cannot be replayed."""
    if fnn_recording != NULL:
        forbid(f"{what}: the shape of its result depends on elements")


# One call of a program: the op's name; the path of the layer it belongs to ("" outside of all); predicted single-thread
# nanoseconds; its outputs and inputs, each as (address, shape, bytes per element), None where absent.
Call = collections.namedtuple("Call", "op, layer, ns, outputs, inputs")


cdef list describe(const fnn_tensor **arguments):
    cdef list found = []
    for k in range(FNN_MAX_ARGS):
        if arguments[k] == NULL:
            found.append(None)
        else:
            found.append((<size_t>arguments[k].data, tuple([arguments[k].shape[a] for a in range(arguments[k].rank)]),
                          fnn_itemsize(arguments[k].dtype)))
    return found


cdef int refuse_second_run() except -1:
    raise RuntimeError("capture: this program is already running on another thread, which must capture a function of its own")


def enter_layer(owner):
    """While recording: launches are those of `owner`, a module or optimiser, until `leave_layer`, which takes what this returns."""
    global fnn_depth
    outer = (<Program>fnn_recording).enter(owner) if fnn_recording != NULL else None
    fnn_depth += 1
    return outer


def leave_layer(outer):
    """Back to the layer around."""
    global fnn_depth
    fnn_depth -= 1
    if outer is not None and fnn_recording != NULL:
        (<Program>fnn_recording).owner, (<Program>fnn_recording).layer = outer


cdef str path_of(owner, parent, str path):
    """`owner`'s place in the tree of modules: the outermost one's class, then attributes' names."""
    if hasattr(parent, "named_modules"):
        for name, module in parent.named_modules():
            if module is owner:
                return f"{path}.{name}" if name else path
    return type(owner).__name__ if parent is None else f"{path}.{type(owner).__name__}"
