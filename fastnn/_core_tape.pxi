# Recorded operations and backward(); part of _core.pyx.

cdef long long next_sequence = 0


@cython.final
@cython.freelist(256)
cdef class Node:
    """One recorded operation: what it saved, where its inputs came from, and the rule that takes gradients back.

    The rule is called as ``rule(node, *doutputs)`` and returns one gradient, or None, per input (alone or as a tuple). A gradient
    is a tensor, or a PartOfGradient.
    """

    cdef readonly object rule
    cdef readonly object context
    cdef readonly tuple needs      # per input: whether a gradient is wanted
    cdef list edges                # per input: the Node that made it, the leaf Tensor itself, or None
    cdef list edge_outputs         # per input: which output of that node it is
    cdef tuple _saved
    cdef list versions
    cdef long long sequence
    cdef int num_outputs
    cdef list pending              # gradients that arrived for the outputs, during backward()
    cdef set ours                  # those of them, by output, whose memory nobody else sees
    cdef object layer              # while recording a program: the layer that launched it
    cdef dict hooks                # by output, those to be called with its gradient; None without

    @property
    def saved(self):
        """The saved tensors; an error if one was since written in place, or the graph was already freed."""
        cdef Py_ssize_t k
        if self._saved is None:
            raise RuntimeError("backward a second time through a graph that was freed: "
                               "call backward(retain_graph=True) the first time")
        for k in range(len(self._saved)):
            t = self._saved[k]
            if t is not None and (<TensorBase>t).storage.version != self.versions[k]:
                raise RuntimeError(f"{self.name}: a tensor of shape {t.shape} needed for the gradient was changed in place")
        return self._saved

    @property
    def name(self):
        return self.rule.__name__.strip("_")

    @property
    def next_functions(self):
        """The nodes (or leaf tensors) its inputs came from; None for inputs that take no gradient."""
        return tuple(self.edges or ())

    def __repr__(self):
        return f"<{self.name} at {id(self):#x}>"


@cython.final
cdef class PartOfGradient:
    """PartOfGradient(values, shape, view): a gradient that is zero but for a part of its tensor, as that of a slice.

    `values` is the part, `shape` that of the whole gradient, and ``view(whole)`` the part's place in it. It is added where it belongs,
    so that a tensor that is read slice by slice has its gradient in time proportional to its size.
    """

    cdef TensorBase values
    cdef tuple shape
    cdef object view

    def __init__(self, TensorBase values not None, tuple shape not None, view):
        self.values, self.shape, self.view = values, shape, view

    cdef TensorBase whole(self):
        cdef TensorBase g = empty(self.shape, self.values.dtype, contiguous=self.values.lies_in_rows)
        launch.fill(value=0.0, out=g)
        launch.copy(self.values, dtype=-1, out=self.view(g))
        return g

    cdef int add_to(self, TensorBase total) except -1:
        part = self.view(total)
        launch.add(part, self.values, out=part)
        return 0


def record(rule, tuple inputs, outputs, tuple saved=(), context=None):
    """Puts an operation on the tape, if gradients are enabled and an input requires one; returns `outputs`.

    Parameters
    ----------
    rule : callable
        ``rule(node, *doutputs)`` gives one gradient or None per input. A doutput is None where no gradient arrived.
    inputs : tuple
        The inputs (tensors, or None).
    outputs : Tensor or tuple of Tensor
        What the operation made; integer outputs take no gradient.
    saved : tuple of Tensor or None
        What the rule needs, found version-checked as ``node.saved``.
    context : object
        Anything else the rule needs, found as ``node.context``.
    """
    cdef bint wanted = False
    cdef TensorBase t
    if not fnn_grad_enabled:
        return outputs
    if isinstance(outputs, TensorBase) and inputs[0] is not None:
        note_view(<TensorBase>outputs, <TensorBase?>inputs[0])
    for value in inputs:
        if value is not None and (<TensorBase?>value)._requires_grad:
            wanted = True
            break
    if not wanted:
        return outputs
    attach(new_node(rule, inputs, outputs if isinstance(outputs, tuple) else (outputs,), saved, context), outputs)
    return outputs


cdef inline int note_view(TensorBase output, TensorBase input) except -1:
    """Has a view know what it is one of: writing to it where a gradient flows writes to that, too."""
    if output.storage is input.storage and output is not input:
        output.base = input.base if input.base is not None and input.base.storage is input.storage else input
    return 0


cdef Node new_node(rule, tuple inputs, tuple results, tuple saved, context):
    cdef Node node = Node.__new__(Node)
    cdef TensorBase t
    global next_sequence
    node.rule = rule
    node.context = context
    node.edges = []
    node.edge_outputs = []
    cdef list needs = [], kept = []
    for value in inputs:
        t = value
        if value is None or not t._requires_grad:
            node.edges.append(None)
            node.edge_outputs.append(0)
            needs.append(False)
        else:
            node.edges.append(t if t.node is None else t.node)
            node.edge_outputs.append(t.output_index)
            needs.append(True)
    node.needs = tuple(needs)
    node.versions = []
    for value in saved:
        if value is None:
            kept.append(None)
            node.versions.append(0)
            continue
        t = value
        for result in results:  # a node that owned its outputs would be a cycle: it keeps aliases of those it needs
            if result is value:
                t = alias(t)
                break
        kept.append(t)
        node.versions.append(t.storage.version)
    node._saved = tuple(kept)
    node.num_outputs = len(results)
    if fnn_recording != NULL:
        node.layer = (<Program>fnn_recording).layer
    node.sequence = next_sequence
    next_sequence += 1
    return node


cdef int attach(Node node, outputs) except -1:
    cdef TensorBase t
    cdef int k = 0
    for value in (outputs if isinstance(outputs, tuple) else (outputs,)):
        t = value
        if t.desc.dtype <= FNN_FLOAT64:
            t.node = node
            t.output_index = k
            t._requires_grad = True
        k += 1
    return 0


def by_sequence(Node node):
    """Sort key: latest first."""
    return -node.sequence


cdef list reachable(Node root):
    """All nodes that backward() from `root` may meet, latest first."""
    cdef set seen = {root}
    cdef list stack = [root], found = []
    cdef Node node
    while stack:
        node = stack.pop()
        found.append(node)
        if node.edges is None:
            raise RuntimeError("backward a second time through a graph that was freed: "
                               "call backward(retain_graph=True) the first time")
        for edge in node.edges:
            if isinstance(edge, Node) and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    found.sort(key=by_sequence)
    return found


cdef int add_undisturbed(TensorBase total, g) except -1:
    """total += g, a tensor or a part of one. No other thread, whose backward may add to it too, comes in between."""
    global fnn_keeps_gil
    fnn_keeps_gil = 1
    try:
        if isinstance(g, PartOfGradient):
            return (<PartOfGradient>g).add_to(total)
        launch.add(total, g, out=total)
    finally:
        fnn_keeps_gil = 0
    return 0


cdef int accumulate(TensorBase leaf, TensorBase g, bint is_ours) except -1:
    """leaf.grad += g. The first gradient is taken over when nobody else can see its memory, copied otherwise."""
    if not fnn_same_shape(&leaf.desc, &g.desc) or leaf.desc.dtype != g.desc.dtype:
        raise RuntimeError(f"backward: a gradient {g.dtype} {g.shape} arrived for a tensor {leaf.dtype} {leaf.shape}")
    if fnn_recording != NULL:
        (<Program>fnn_recording).note_gradient(leaf, False)
    if leaf._grad is not None:
        return add_undisturbed(leaf._grad, g)
    cdef Storage storage = g.storage
    cdef bint is_seen = Py_REFCNT(storage) > 2  # g's reference and ours here
    if not is_ours or is_seen or not (fnn_is_contiguous(&g.desc) or fnn_is_channels_last(&g.desc)):
        g = launch.contiguous(g)
        if leaf._grad is not None:  # another thread was faster
            return add_undisturbed(leaf._grad, g)
    leaf._grad = g
    return 0


cdef int accumulate_part(TensorBase leaf, PartOfGradient part) except -1:
    """`accumulate` of a part, for a leaf that has a ``grad``."""
    if part.shape != leaf.shape:
        raise RuntimeError(f"backward: a gradient {part.shape} arrived for a tensor {leaf.shape}")
    if fnn_recording != NULL:
        (<Program>fnn_recording).note_gradient(leaf, False)
    return add_undisturbed(leaf._grad, part)


cdef int push(Node node, int index, g) except -1:
    """Adds a gradient, a tensor or a part of one, to what arrived for a node's output."""
    if node.pending is None:
        node.pending, node.ours = [None] * node.num_outputs, set()
    other = node.pending[index]
    if isinstance(g, PartOfGradient):
        if index in node.ours:
            return (<PartOfGradient>g).add_to(other)
        g = (<PartOfGradient>g).whole()
        node.ours.add(index)
    elif other is not None:
        node.ours.add(index)
    node.pending[index] = <TensorBase?>g if other is None else launch.add(other, g)
    return 0


cdef TensorBase hooked(dict functions, TensorBase g):
    """A gradient as hooks leave it."""
    cdef TensorBase changed
    for function in tuple(functions.values()):
        answer = function(g)
        if answer is None:
            continue
        if not isinstance(answer, TensorBase):
            raise TypeError(f"hook: it returned a {type(answer).__name__}, but must return a Tensor or None")
        changed = answer
        if not fnn_same_shape(&changed.desc, &g.desc) or changed.desc.dtype != g.desc.dtype:
            raise RuntimeError(f"hook: it returned {changed.dtype} {changed.shape} for a gradient {g.dtype} {g.shape}")
        g = changed
    return g


cdef int arrive(TensorBase leaf, gradient, bint is_ours, dict waiting, set only) except -1:
    """A gradient for a leaf, a tensor or a part of one: added to its ``grad``, or kept until all of it is there for hooks to see."""
    cdef TensorBase g
    if only is not None and id(leaf) not in only:
        return 0
    if isinstance(gradient, PartOfGradient):
        if leaf.hooks is None and leaf._grad is not None:
            return accumulate_part(leaf, gradient)
        gradient = (<PartOfGradient>gradient).whole()
    g = <TensorBase?>gradient
    if leaf.hooks is None:
        return accumulate(leaf, g, is_ours)
    before = waiting.get(id(leaf))
    waiting[id(leaf)] = (leaf, g if before is None else launch.add(before[1], g))
    return 0


cdef int finish_leaves(dict waiting) except -1:
    cdef TensorBase leaf
    for leaf, g in waiting.values():
        accumulate(leaf, hooked(leaf.hooks, g), False)
        for function in tuple(leaf.late_hooks.values()):
            function(leaf)
    return 0


cdef int step_back(Node node, dict waiting, set only) except -1:
    """Calls one node's rule and hands its gradients on."""
    cdef tuple arrived, results
    if node.hooks is not None:
        for index, functions in tuple(node.hooks.items()):  # a hook may register another
            if node.pending[index] is not None:
                node.pending[index] = hooked(functions, node.pending[index])
    arrived = tuple(node.pending)
    cdef Py_ssize_t k, j
    cdef bint is_ours
    node.pending = node.ours = None
    if fnn_recording != NULL:
        (<Program>fnn_recording).layer = node.layer or ""
    answer = node.rule(node, *arrived)
    results = answer if isinstance(answer, tuple) else (answer,)
    if len(results) != len(node.edges):
        raise RuntimeError(f"{node.name}: the rule gave {len(results)} gradients for {len(node.edges)} inputs")
    for k in range(len(results)):
        edge = node.edges[k]
        if edge is None or results[k] is None:
            continue
        if isinstance(edge, Node):
            push(<Node>edge, node.edge_outputs[k], results[k])
            continue
        # A rule may hand on what it was given, or one tensor for two inputs: such a gradient is shared.
        is_ours = True
        for j in range(len(arrived)):
            is_ours = is_ours and results[k] is not arrived[j]
        for j in range(len(results)):
            is_ours = is_ours and (j == k or results[k] is not results[j])
        arrive(<TensorBase>edge, results[k], is_ours, waiting, only)
    return 0


def backward(TensorBase root not None, gradient=None, bint retain_graph=False, set only=None):
    """Takes gradients from `root` back to every leaf that requires one, adding them to the leaves' ``grad``.

    Parameters
    ----------
    root : Tensor
        What to differentiate.
    gradient : Tensor, optional
        The gradient with respect to `root`; may be left out when `root` has one element.
    retain_graph : bool
        Keep the graph, so that backward can be called again.
    only : set of int, optional
        Identities of the leaves that are to have their gradients; by default all.
    """
    global fnn_grad_enabled
    cdef Node node
    cdef dict waiting = {}
    cdef int enabled = fnn_grad_enabled
    cdef list nodes = []
    if not root._requires_grad:
        raise RuntimeError("backward: the tensor does not require grad and was not computed from one that does")
    if gradient is None:
        if fnn_numel(&root.desc) != 1:
            raise RuntimeError(f"backward: only a tensor of one element has a default gradient; this one has shape {root.shape}")
        gradient = empty(root.shape, root.dtype)
        write_scalar((<TensorBase>gradient).desc.data, root.desc.dtype, 1.0)
    elif not isinstance(gradient, TensorBase) or not fnn_same_shape(&root.desc, &(<TensorBase>gradient).desc):
        raise ValueError(f"backward: gradient must be a Tensor of shape {root.shape}, not {getattr(gradient, 'shape', gradient)}")
    layer = (<Program>fnn_recording).layer if fnn_recording != NULL else ""
    fnn_grad_enabled = 0
    try:
        if root.node is None:
            arrive(root, gradient, False, waiting, only)
            finish_leaves(waiting)
            return
        nodes = reachable(root.node)
        push(root.node, root.output_index, gradient)
        for node in nodes:
            if node.pending is None:
                continue
            step_back(node, waiting, only)
            if not retain_graph:
                node._saved = node.edges = node.context = node.hooks = None
        finish_leaves(waiting)
    finally:
        fnn_grad_enabled = enabled
        if fnn_recording != NULL:
            (<Program>fnn_recording).layer = layer
        for node in nodes:
            node.pending = node.ours = None


def is_grad_enabled():
    """Whether operations are recorded on this thread."""
    return bool(fnn_grad_enabled)


def set_grad_enabled(bint enabled):
    """Switches recording on this thread on or off; returns what it was."""
    global fnn_grad_enabled
    cdef bint before = fnn_grad_enabled
    fnn_grad_enabled = enabled
    return before
