# The one door into the C engine; part of _core.pyx.

cdef dict EXCEPTIONS = {FNN_VALUE_ERROR: ValueError, FNN_TYPE_ERROR: TypeError, FNN_INDEX_ERROR: IndexError,
                        FNN_MEMORY_ERROR: MemoryError}


cdef object raise_status(int status, fnn_call *call):
    raise EXCEPTIONS[status](call.message.decode("utf-8", "replace"))


def argument_names(specification):
    """The bare names in a specification of ops.def: "x, target:int64, bias?" gives ["x", "target", "bias"]."""
    return [part.strip().rstrip("?").split(":")[0] for part in specification.split(",") if part.strip()]


@cython.final
cdef class Op:
    """One operation of the engine, callable: ``launch.<name>(*inputs, out=None, **attributes)``.

    Inputs are tensors (None where optional and absent), attributes are all required; the result is a tensor, or a tuple where
    the op has several outputs. `out` gives the outputs to write in place.
    """

    cdef int index
    cdef int num_inputs, num_outputs, num_attributes
    cdef int generator  # which input is the random generator's state; -1: none
    cdef dict packer    # attribute -> (is_float, first slot, how many)
    cdef readonly str name
    cdef readonly tuple inputs, outputs, attributes
    cdef readonly bint elementwise

    def __init__(self, int index):
        cdef const fnn_op *op = &fnn_ops[index]
        self.index = index
        self.name = op.name.decode()
        self.inputs = tuple(argument_names(op.inputs.decode()))
        self.outputs = tuple(argument_names(op.outputs.decode()))
        self.num_inputs = len(self.inputs)
        self.num_outputs = len(self.outputs)
        self.elementwise = (op.flags & FNN_ELEMENTWISE) != 0
        self.generator = self.inputs.index("generator") if op.flags & FNN_RANDOM else -1
        self.packer = {}
        slots = {"i": 0, "f": 0}
        for part in op.attributes.decode().split():
            name, kind = part.split(":")
            count = int(kind[:-1] or 1)
            self.packer[name] = (kind[-1] == "f", slots[kind[-1]], count)
            slots[kind[-1]] += count
        if slots["i"] > FNN_MAX_INTS or slots["f"] > FNN_MAX_FLOATS:
            raise RuntimeError(f"ops.def: {self.name} has too many attributes")
        self.attributes = tuple(self.packer)
        self.num_attributes = len(self.packer)

    def __repr__(self):
        return f"<op {self.name}({', '.join(self.inputs + self.attributes)}) -> {', '.join(self.outputs)}>"

    cdef int pack(self, fnn_call *call, dict attributes) except -1:
        cdef int slot, count, k
        if len(attributes) != self.num_attributes:
            raise TypeError(f"{self.name}: takes the attributes {self.attributes}, not {tuple(attributes)}")
        for name, value in attributes.items():
            entry = self.packer.get(name)
            if entry is None:
                raise TypeError(f"{self.name}: has no attribute '{name}'; its attributes are {self.attributes}")
            slot = entry[1]
            count = entry[2]
            if count == 1:
                value = (value,)
            elif len(value) != count:
                raise ValueError(f"{self.name}: attribute '{name}' is {value!r}, but must have {count} values")
            try:
                for k in range(count):
                    if entry[0]:
                        call.attr.f[slot + k] = value[k]
                    else:
                        call.attr.i[slot + k] = value[k]
            except (TypeError, ValueError, OverflowError) as error:
                kind = "a number" if entry[0] else "an integer that fits 64 bits"
                raise (TypeError if isinstance(error, TypeError) else ValueError)(
                    f"{self.name}: attribute '{name}' is {value[k]!r}, but must be {kind}") from None
        return 0

    cdef int take_inputs(self, fnn_call *call, tuple inputs) except -1:
        cdef int k
        if len(inputs) > self.num_inputs:
            raise TypeError(f"{self.name}: takes {self.num_inputs} inputs {self.inputs}, not {len(inputs)}")
        for k in range(len(inputs)):
            value = inputs[k]
            if value is None:
                continue
            if not isinstance(value, TensorBase):
                raise TypeError(f"{self.name}: argument '{self.inputs[k]}' is a {type(value).__name__}, but must be a Tensor")
            call.inputs[k] = &(<TensorBase>value).desc
        return 0

    cdef tuple make_outputs(self, fnn_call *call):
        """New outputs, as the op infers them."""
        cdef int k, status
        cdef tuple results = (new_tensor(),) if self.num_outputs == 1 else tuple([new_tensor() for k in range(self.num_outputs)])
        for k in range(self.num_outputs):
            call.outputs[k] = &(<TensorBase>results[k]).desc
            call.outputs[k].rank = -1
        status = fnn_infer(call)
        if status != FNN_OK:
            raise_status(status, call)
        for k in range(self.num_outputs):
            allocate(<TensorBase>results[k])
        return results

    cdef int take_outputs(self, fnn_call *call, tuple results) except -1:
        """Checks the caller's outputs against what the op infers, then puts them into the call."""
        cdef fnn_tensor[12] inferred
        cdef fnn_tensor *given[12]
        cdef int k, status
        cdef TensorBase t
        if len(results) != self.num_outputs:
            raise TypeError(f"{self.name}: out needs {self.num_outputs} tensors {self.outputs}, not {len(results)}")
        memset(given, 0, sizeof(given))
        for k in range(self.num_outputs):
            if not isinstance(results[k], TensorBase):
                raise TypeError(f"{self.name}: output '{self.outputs[k]}' is a {type(results[k]).__name__}, but must be a Tensor")
            t = results[k]
            if not t.storage.writable:
                raise ValueError(f"{self.name}: output '{self.outputs[k]}' is read-only memory")
            if fnn_grad_enabled and t._requires_grad:
                raise RuntimeError(f"{self.name}: output '{self.outputs[k]}' requires grad: write to it under no_grad()")
            given[k] = &t.desc
            inferred[k] = t.desc
            call.outputs[k] = &inferred[k]
        status = fnn_infer(call)
        if status == FNN_OK:
            status = fnn_check_outputs(call, given)
        if status != FNN_OK:
            raise_status(status, call)
        for k in range(self.num_outputs):
            call.outputs[k] = given[k]
            (<TensorBase>results[k]).storage.version += 1
        return 0

    def algorithm(self, *inputs, **attributes):
        """The way a call of these inputs and attributes would be computed, for reports; nothing is."""
        cdef fnn_call call
        cdef fnn_tensor[12] inferred
        cdef int k, status
        memset(&call, 0, sizeof(fnn_call))
        memset(inferred, 0, sizeof(inferred))
        call.op = self.index
        self.take_inputs(&call, inputs)
        self.pack(&call, attributes)
        for k in range(self.num_outputs):
            inferred[k].rank = -1
            call.outputs[k] = &inferred[k]
        status = fnn_infer(&call)
        if status != FNN_OK:
            raise_status(status, &call)
        return fnn_algorithm(&call).decode()

    def each(self, list inputs not None, list out not None, **attributes):
        """One launch of many calls of an elementwise op with the same attributes.

        Call k takes the tuple inputs[k] and writes out[k], a tensor or a tuple of them. Nothing is written where one call is
        refused; where calls share memory that is written, they run in order.
        """
        global fnn_busy
        cdef int n = len(inputs), k, later = 0, status
        cdef fnn_call *calls
        cdef fnn_tensor *own = NULL
        cdef double ns = 0
        cdef list results
        if not self.elementwise:
            raise TypeError(f"{self.name}: is not elementwise, so that its calls are launched one by one")
        if len(out) != n:
            raise ValueError(f"{self.name}: inputs has {n} calls, out {len(out)}")
        if n == 0:
            return
        results = [value if isinstance(value, tuple) else (value,) for value in out]
        calls = <fnn_call *>PyMem_Malloc(n * sizeof(fnn_call))
        if calls == NULL:
            raise MemoryError()
        try:
            for k in range(n):
                self.prepare(&calls[k], <tuple?>inputs[k], results[k], attributes if k == 0 else None)
                if k > 0:
                    calls[k].attr = calls[0].attr
                ns += fnn_cost(&calls[k])
            if fnn_recording != NULL:
                while later < n and (<Program>fnn_recording).put_off(self, &calls[later], inputs[later], results[later]):
                    later += 1
            if later == n:
                return
            if ns < FNN_GIL_NS:
                status = fnn_run_each(calls + later, n - later, ns)
            else:
                own = <fnn_tensor *>PyMem_Malloc(n * 24 * sizeof(fnn_tensor))
                if own == NULL:
                    raise MemoryError()
                held = [self.hold(&calls[k], own + 24 * k, inputs[k], results[k]) for k in range(n)]
                fnn_busy += 1
                with nogil:
                    status = fnn_run_each(calls + later, n - later, ns)
                fnn_busy -= 1
            if status != FNN_OK:
                raise_status(status, calls)
            if fnn_recording != NULL:
                for k in range(later, n):
                    (<Program>fnn_recording).note_launch(self, &calls[k], inputs[k], results[k])
        finally:
            PyMem_Free(own)
            PyMem_Free(calls)

    cdef int prepare(self, fnn_call *call, tuple inputs, tuple results, dict attributes) except -1:
        memset(call, 0, sizeof(fnn_call) - sizeof(call.message))
        call.message[0] = 0
        call.op = self.index
        self.take_inputs(call, inputs)
        if attributes is not None:
            self.pack(call, attributes)
        self.take_outputs(call, results)
        return 0

    cdef list hold(self, fnn_call *call, fnn_tensor *own, tuple inputs, tuple results):
        """Gives the call descriptions and memory that stay while other threads give its tensors other memory (`set_data`)."""
        cdef int k
        cdef list storages = []
        for k in range(len(inputs)):
            if call.inputs[k] != NULL:
                own[k] = call.inputs[k][0]
                call.inputs[k] = &own[k]
                storages.append((<TensorBase>inputs[k]).storage)
        for k in range(self.num_outputs):
            own[12 + k] = call.outputs[k][0]
            call.outputs[k] = &own[12 + k]
            storages.append((<TensorBase>results[k]).storage)
        return storages

    def __call__(self, *inputs, out=None, **attributes):
        global fnn_busy
        cdef fnn_call call
        cdef fnn_tensor[24] own
        cdef int64_t[2] state
        cdef int64_t *drawn = NULL
        cdef int status
        cdef tuple results
        memset(&call, 0, sizeof(fnn_call) - sizeof(call.message))
        call.message[0] = 0
        call.op = self.index
        self.take_inputs(&call, inputs)
        self.pack(&call, attributes)
        if out is None:
            results = self.make_outputs(&call)
        else:
            results = out if isinstance(out, tuple) else (out,)
            self.take_outputs(&call, results)
        if self.generator >= 0 and not (<TensorBase>inputs[self.generator]).storage.writable:
            raise ValueError(f"{self.name}: argument 'generator' is read-only memory, but its counter moves on")
        if fnn_recording != NULL and (<Program>fnn_recording).put_off(self, &call, inputs, results):
            return results[0] if self.num_outputs == 1 else results
        if fnn_keeps_gil or fnn_cost(&call) < FNN_GIL_NS:
            status = fnn_run(&call)
        else:
            held = self.hold(&call, own, inputs, results)
            if self.generator >= 0:  # other threads may draw meanwhile, and must not get the same numbers
                drawn = <int64_t *>own[self.generator].data
                memcpy(state, drawn, sizeof(state))
                own[self.generator].data = state
                drawn[1] += 1
            fnn_busy += 1
            with nogil:
                status = fnn_run(&call)
            fnn_busy -= 1
            if self.generator >= 0:
                own[self.generator].data = drawn
        if status != FNN_OK:
            raise_status(status, &call)
        if fnn_recording != NULL:
            (<Program>fnn_recording).note_launch(self, &call, inputs, results)
        if self.generator >= 0 and drawn == NULL:
            (<int64_t *>call.inputs[self.generator].data)[1] += 1
        return results[0] if self.num_outputs == 1 else results
