# Recording a step's launches and replaying them; part of _core.pyx.

@cython.final
cdef class Program:
    """A step's launches, recorded once, then replayed in C: what `fastnn.capture` works with.

    ``begin(inputs)``, run the step, ``end(outputs)``; then ``mismatch()``, ``takes(inputs)`` and ``run(inputs)`` any number of times.
    """

    cdef fnn_program *handle
    cdef list storages      # by number: (storage, or a weak reference to what a launch made; input); the arena's are forgotten
    cdef dict numbers       # storage.serial -> number
    cdef list guards        # (leaf tensor, its storage, what of it it showed) as the launches met them
    cdef set guarded
    cdef dict gradients     # id(leaf) -> [leaf, grad before, whether it was set first, grad after]
    cdef dict random_counts # number of a generator's state -> its launches in the step
    cdef list inputs        # per input tensor: its storage's number
    cdef list outputs       # per output tensor: (number or -1, template tensor, number of the input it is or is a view of or -1)
    cdef list given         # while recording: the inputs themselves
    cdef list watched       # per storage the step found: [itself, how often the program holds it, tensors that show it]
    cdef list written_inputs  # numbers of the inputs that the program writes
    cdef list written       # fixed storages that the program writes
    cdef Storage arena
    cdef long long first_serial
    cdef bint running
    cdef public bint is_put_off  # launches are only recorded, to run when the step has ended
    cdef bint holds_memory
    cdef object owner       # while recording: the module at work, and its path
    cdef public object layer
    cdef list layers        # per recorded launch: its layer's path
    cdef public object obstacle  # why the step cannot be replayed, or None
    cdef set followed       # serials of the storages that gradients and the graphs of outputs hold
    cdef readonly bint leaves_state  # what the step made lives on besides those: state that came to be, or is made anew every time

    def __cinit__(self):
        self.handle = fnn_program_new()
        if self.handle == NULL:
            raise MemoryError()
        self.storages, self.guards, self.inputs, self.outputs, self.written = [], [], [], [], []
        self.numbers, self.gradients, self.random_counts, self.guarded, self.followed = {}, {}, {}, set(), set()
        self.layer, self.layers = "", []
        self.given, self.written_inputs, self.watched = [], [], []

    def __dealloc__(self):
        if self.holds_memory:
            fnn_memory_release()
        fnn_program_free(self.handle)

    # -- recording --

    def begin(self, inputs, bint put_off=False):
        """Starts recording this thread's launches; `inputs` are the tensors that differ from call to call.

        With `put_off` they do not run until the step has ended and is planned (`run_recorded`), or until Python wants to see what
        they make: so a step's first calls take no more memory than its replays.
        """
        global fnn_recording
        cdef TensorBase t
        if fnn_recording != NULL:
            raise RuntimeError("capture: a captured step cannot be recorded inside another one")
        self.first_serial = next_serial
        for value in inputs:
            t = value
            if t.storage.serial in self.numbers and self.base_of(t.storage) != <char *>t.desc.data:
                self.obstacle = "two inputs are different views of one storage"
                put_off = False  # one address stands for both: launches must meet the memory themselves
            self.inputs.append(self.number(t.storage, t))
            self.given.append(t)
        self.is_put_off = self.holds_memory = put_off
        if put_off:
            fnn_memory_hold()
        fnn_recording = <void *>self

    cdef tuple enter(self, owner):
        outer = self.owner, self.layer
        self.layer = path_of(owner, self.owner, self.layer)
        self.owner = owner
        return outer

    cdef int number(self, Storage storage, TensorBase as_input=None, bint is_made=False) except -1:
        """The storage's number. What a launch makes is not kept alive: its memory serves again, as in an eager step."""
        found = self.numbers.get(storage.serial)
        if found is not None:
            return found
        cdef int number = fnn_program_add_storage(self.handle, storage.nbytes)
        if number < 0:
            raise MemoryError()
        self.numbers[storage.serial] = number
        kept = weakref.ref(storage) if is_made and storage.serial >= self.first_serial else storage
        self.storages.append((kept, None if as_input is None else alias(as_input)))
        return number

    cdef Py_ssize_t references_to(self, Storage storage) except -1:
        """How many references the recording itself has to a storage."""
        cdef Py_ssize_t count = 0
        number = self.numbers.get(storage.serial)
        if number is None:
            return 0
        kept, as_input = self.storages[number]
        count = (kept is storage) + (as_input is not None)
        for guard in self.guards:
            count += 2 * (guard[1] is storage)  # which the view it remembers has, too
        return count

    cdef char *base_of(self, Storage storage):
        """Where offsets into the storage count from: for an input, which may be a slice, from its first element."""
        as_input = self.storages[self.numbers[storage.serial]][1]
        return storage.start if as_input is None else <char *>(<TensorBase>as_input).desc.data

    cdef int note_launch(self, Op op, fnn_call *call, tuple inputs, tuple results) except -1:
        cdef int[24] numbers
        cdef char *bases[24]
        cdef fnn_attrs attr = call.attr
        cdef TensorBase t
        cdef int k
        for k in range(24):
            numbers[k] = -1
            bases[k] = NULL
        for k in range(len(results) + len(inputs)):
            value = results[k] if k < len(results) else inputs[k - len(results)]
            if value is None:
                continue
            t = value
            slot = k if k < len(results) else FNN_MAX_ARGS + k - len(results)
            numbers[slot] = self.number(t.storage, None, k < len(results))
            bases[slot] = self.base_of(t.storage)
            if t.storage.serial < self.first_serial and t.node is None and id(t) not in self.guarded and (
                    self.storages[numbers[slot]][1] is None):
                self.guarded.add(id(t))
                self.guards.append((t, t.storage, alias(t)))
        if op.generator >= 0:
            number = numbers[FNN_MAX_ARGS + op.generator]
            self.check_generator(op, call, inputs)
            call.attr.i[<int>op.packer["ordinal"][1]] = self.random_counts.get(number, 0)
            self.random_counts[number] = self.random_counts.get(number, 0) + 1
        elif self.random_counts and self.meets_drawn(inputs, results):
            forbid("a generator's state is read or set after the step has drawn from it", False)  # replays count at their end
        if fnn_program_add_call(self.handle, call, numbers, bases) != FNN_OK:
            raise MemoryError()
        call.attr = attr
        self.layers.append(self.layer)
        return 0

    cdef bint put_off(self, Op op, fnn_call *call, tuple inputs, tuple results) except -1:
        """Whether the launch is left for later; then it is noted."""
        if not self.is_put_off:
            return False
        if op.generator >= 0:
            self.check_generator(op, call, inputs)
        if fnn_memory_holds_much() or self.meets_python(op, inputs, results):
            self.catch_up()
        if self.is_put_off:
            self.note_launch(op, call, inputs, results)
        return self.is_put_off

    cdef bint meets_python(self, Op op, tuple inputs, tuple results):
        """Whether putting the launch off could be noticed: it writes what Python sees through an array, reads an array that
        the step made, which Python may change afterwards, or meets a generator's state, which counts the launches before."""
        cdef Storage storage
        cdef int k
        for value in results:
            if value is not None:
                storage = (<TensorBase>value).storage
                if storage.is_shared or storage.exports > 0:
                    return True
        for k in range(len(inputs)):
            if inputs[k] is not None:
                storage = (<TensorBase>inputs[k]).storage
                if storage.is_shared and storage.serial >= self.first_serial:
                    return True
        return op.generator < 0 and self.meets_drawn(inputs, results)

    cdef bint meets_drawn(self, tuple inputs, tuple results):
        """Whether a launch meets the state of a generator that the step has drawn from."""
        for value in (inputs + results if self.random_counts else ()):
            if value is not None and self.numbers.get((<TensorBase>value).storage.serial, -1) in self.random_counts:
                return True
        return False

    cdef Storage lasting(self, int number):
        """The storage of that number; None where it was made by the step and is gone."""
        if self.storages[number] is None:
            return None
        kept = self.storages[number][0]
        return kept() if isinstance(kept, weakref.ref) else kept

    cdef int check_generator(self, Op op, fnn_call *call, tuple inputs) except -1:
        cdef Storage storage = (<TensorBase>inputs[op.generator]).storage
        cdef char *base = self.base_of(storage) if storage.serial in self.numbers else storage.start
        if <char *>call.inputs[op.generator].data != base:
            forbid("a generator's state is part of a larger tensor")
        return 0

    cdef int note_gradient(self, TensorBase leaf, bint is_set) except -1:
        if id(leaf) not in self.gradients:
            self.gradients[id(leaf)] = [leaf, leaf._grad, is_set, None]
        return 0

    def stop(self):
        """Ends the recording, whatever comes of it."""
        global fnn_recording
        if fnn_recording == <void *>self:  # Ctrl-C may come before `begin` has begun
            fnn_recording = NULL
        self.owner = None

    cdef int let_go(self) except -1:
        """What the step has given back may be used again."""
        if self.holds_memory:
            self.holds_memory = False
            fnn_memory_release()
        return 0

    def catch_up(self):
        """Runs what was put off, where it was recorded; from then on launches run as they come."""
        global fnn_busy
        cdef const char *message = NULL
        cdef Storage storage
        cdef int status
        if not self.is_put_off:
            return
        self.is_put_off = False
        fnn_busy += 1
        with nogil:
            status = fnn_program_run_unplanned(self.handle, &message)
        fnn_busy -= 1
        if status == FNN_OK:
            for number, count in self.random_counts.items():
                storage = self.lasting(number)
                if storage is not None:
                    (<int64_t *>storage.start)[1] += count
        self.let_go()
        if status != FNN_OK:
            self.fail(status, message)

    cdef int fail(self, int status, const char *message) except -1:
        """Raises the error of launches that were put off. The step did not happen: gradients are those before it, and what it left
        half made (an optimiser's new state) is zero."""
        cdef Storage storage
        cdef int number
        for number in range(len(self.storages)):
            storage = self.lasting(number)
            if storage is not None and storage.serial >= self.first_serial and storage.foreign == NULL and (
                    fnn_program_is_written(self.handle, number) and not fnn_program_was_written(self.handle, number)):
                memset(storage.start, 0, storage.nbytes)
        for leaf, before, is_set, after in self.gradients.values():
            (<TensorBase>leaf)._grad = before
        raise EXCEPTIONS[status](message.decode("utf-8", "replace"))

    def run_recorded(self, inputs, outputs):
        """Runs the planned step on the very tensors it was recorded with."""
        global fnn_busy
        cdef const char *message = NULL
        cdef Storage storage
        cdef int k, status, number
        self.claim()
        self.is_put_off = False
        for number in range(len(self.storages)):
            if self.storages[number] is not None:
                storage = self.storages[number][0]
                fnn_program_bind(self.handle, number, storage.start)
        for k in range(len(self.outputs)):
            number = self.outputs[k][0]
            if number >= 0:
                storage = (<TensorBase>outputs[k]).storage
                fnn_program_bind(self.handle, number, storage.start)
        for k in range(len(self.inputs)):
            fnn_program_bind(self.handle, self.inputs[k], <char *>(<TensorBase?>inputs[k]).desc.data)
        fnn_busy += 1
        with nogil:
            status = fnn_program_run(self.handle, &message)
        fnn_busy -= 1
        self.release()
        if status != FNN_OK:
            self.fail(status, message)

    def end(self, outputs, bint once=False):
        """Decides where each storage lives, and plans; `outputs` are the tensors the step returned. False if it cannot be replayed.

        With `once` the plan is for `run_recorded` alone, for which nothing is in the way.
        """
        cdef TensorBase t
        cdef Storage storage
        cdef int number
        if self.obstacle is not None and not once:
            return False
        returned = {}
        for value in outputs:
            t = value
            number = self.numbers.get(t.storage.serial, -1)
            if number >= 0 and t.storage.serial >= self.first_serial:
                returned[number] = t.storage
            self.outputs.append(self.output(t, number, number in returned))
        self.written_inputs = [k for k in range(len(self.inputs)) if fnn_program_is_written(self.handle, self.inputs[k])]
        self.given = []
        for entry in self.gradients.values():
            entry[3] = (<TensorBase>entry[0])._grad
            if entry[3] is not None:
                self.followed.add((<TensorBase>entry[3]).storage.serial)
        note_saved(outputs, self.followed)
        for number in range(len(self.storages)):
            if not self.settle(number, number in returned, once):
                return False
        self.watch()
        self.let_go()
        for number, count in self.random_counts.items():
            storage = self.lasting(number)
            if storage is None:  # of a generator that every step makes anew
                continue
            if fnn_program_count_random(self.handle, <int64_t *>storage.start + 1, count) != FNN_OK:
                raise MemoryError("capture: no memory for the plan")
        if fnn_program_plan(self.handle, once) != FNN_OK:
            raise MemoryError("capture: no memory for the plan")
        return True

    cdef tuple output(self, TensorBase t, int number, bint is_returned):
        """What `make_outputs` needs of a result: what a launch made, a view of an input, older memory, or what Python made, of
        which every replay gives a copy."""
        cdef TensorBase kept
        cdef int k
        for k in range(len(self.given)):
            if (<TensorBase>self.given[k]).storage is t.storage:
                kept = self.given[k]
                return -1, (None if kept is t else alias(t)), k, <char *>t.desc.data - <char *>kept.desc.data
        if number < 0 and t.storage.serial >= self.first_serial:
            kept = alias(t)
            kept.storage = copy_of(t.storage)  # the caller gets the recorded one, and may change it
            kept.desc.data = kept.storage.start + (<char *>t.desc.data - t.storage.start)
            return -2, kept, -1, 0
        return number if is_returned else -1, alias(t), -1, 0

    cdef bint settle(self, int number, bint is_returned, bint once) except -1:
        """Gives storage `number` its kind, and forgets it if it can go into the arena."""
        kept, as_input = self.storages[number]
        cdef bint is_made = isinstance(kept, weakref.ref)
        cdef Storage storage = kept() if is_made else kept
        cdef bint is_input = as_input is not None
        if is_input or is_returned:
            fnn_program_set_kind(self.handle, number, FNN_BOUND, NULL)
            if is_returned and fnn_program_is_read_first(self.handle, number) and not once:
                self.obstacle = "an output of the step was made by Python"
                return False
            if is_made and self.holds_memory:
                fnn_memory_outlives_hold(storage.start)
            self.storages[number] = (storage, as_input) if once else None
            return True
        is_written = fnn_program_is_written(self.handle, number)
        is_old = not is_made and storage.serial < self.first_serial
        if not is_old and fnn_program_is_read_first(self.handle, number) and is_written and not once:
            self.obstacle = "a tensor that Python made within the step is changed in place"
            return False
        if storage is not None:  # older than the step, a constant, or made by it and still in somebody's hands
            self.storages[number] = storage, as_input
            if is_made and self.holds_memory:
                fnn_memory_outlives_hold(storage.start)
            if is_made and storage.serial not in self.followed:
                self.leaves_state = True
            fnn_program_set_kind(self.handle, number, FNN_BOUND if is_made and once else FNN_FIXED, storage.start)
            if is_written:
                self.written.append(storage)
            return True
        fnn_program_set_kind(self.handle, number, FNN_TEMPORARY, NULL)
        self.storages[number] = None
        return True

    # -- replay --

    cdef int watch(self) except -1:
        """Notes, for `forgotten`, what the program itself holds of each storage that the step found."""
        cdef dict found = {}
        for t, storage, before in self.guards:
            number = self.numbers[(<Storage>storage).serial]
            if self.storages[number] is not None:
                # the list of storages, what is written, and this entry; then each guard and the view it remembers
                entry = found.setdefault(number, [storage, 2 + fnn_program_is_written(self.handle, number), []])
                entry[1] += 2
                entry[2].append(t)
        self.watched = list(found.values())
        return 0

    def takes(self, inputs):
        """Whether inputs are none of the memory that the step reaches by itself, and that calls were ordered by, and may be written
        where the step writes them."""
        for k in self.written_inputs:
            if not (<TensorBase?>inputs[k]).storage.writable:
                return False
        for value in inputs:
            number = self.numbers.get((<TensorBase?>value).storage.serial)
            if number is not None and self.storages[number] is not None:
                return False
        return True

    def mismatch(self):
        """Why the program may not be replayed now although its inputs fit; None if it may."""
        cdef TensorBase t
        for t, storage, before in self.guards:
            if (<TensorBase>t).storage is not storage or not is_same_view(<TensorBase>t, <TensorBase>before):
                return f"a tensor of shape {t.shape} was given other memory"
        shape = forgotten(self.watched)
        if shape is not None:
            return f"a tensor of shape {shape} was replaced by another one"
        for leaf, before, is_set, after in self.gradients.values():
            t = leaf
            if before is None:
                if not is_set and t._grad is not None:
                    return f"a parameter of shape {t.shape} already has a gradient"
            elif (<TensorBase>before).storage.serial in self.numbers and (
                    t._grad is None or (<TensorBase>t._grad).storage is not (<TensorBase>before).storage):
                return f"the gradient of a parameter of shape {t.shape} was replaced"
        return None

    @property
    def arena_bytes(self):
        """Bytes that all temporaries and workspaces take together."""
        return fnn_program_arena_bytes(self.handle)

    @property
    def eager_bytes(self):
        """Bytes that the temporaries would take without a plan."""
        return fnn_program_eager_bytes(self.handle)

    def calls(self):
        """The planned calls, each as a list of `Call`: itself, then those that run within it."""
        return [self.chain(k) for k in range(fnn_program_num_calls(self.handle))]

    cdef list chain(self, int k):
        cdef const fnn_call *call
        cdef list members = []
        while True:
            call = fnn_program_call(self.handle, k, len(members))
            if call == NULL:
                return members
            how = "+relu" if call.activation else "+late" if call.is_late else ""
            members.append(Call(fnn_ops[call.op].name.decode() + how,
                                self.layers[fnn_program_call_number(self.handle, k, len(members))],
                                fnn_cost(call), describe(call.outputs), describe(<const fnn_tensor **>call.inputs)))

    def fusions(self):
        """How often each fusion rule was applied."""
        return {fnn_fusion_name(rule).decode(): fnn_program_num_fusions(self.handle, rule) for rule in range(FNN_NUM_FUSIONS)}

    def set_arena(self, Storage arena not None):
        """Gives the program the memory its temporaries live in."""
        if arena is not self.arena:
            if self.running:
                refuse_second_run()
            self.arena = arena
            fnn_program_set_arena(self.handle, arena.start)

    cdef int claim(self) except -1:
        """Marks the program and its arena as in use until `release`. Where another program of the function is running in the arena,
        for inputs of other shapes on another thread, this one gets an arena of its own."""
        if self.running:
            refuse_second_run()
        if self.arena is not None and self.arena.is_busy:
            self.set_arena(new_storage(fnn_program_arena_bytes(self.handle)))
        self.running = True
        if self.arena is not None:
            self.arena.is_busy = True
        return 0

    cdef int release(self) except -1:
        self.running = False
        if self.arena is not None:
            self.arena.is_busy = False
        return 0

    cdef list make_outputs(self, inputs):
        """Fresh memory for the outputs, bound; those that are inputs, or views of them, are those of this call."""
        cdef TensorBase t, template
        cdef list results = []
        cdef dict fresh = {}
        cdef TensorBase given
        cdef Py_ssize_t offset
        for number, value, as_input, offset in self.outputs:
            if value is None:
                results.append(inputs[as_input])
                continue
            template = value
            t = alias(template)
            if as_input >= 0:
                given = inputs[as_input]
                t.storage = given.storage
                t.desc.data = <char *>given.desc.data + offset
            elif number == -2:
                t.storage = copy_of(template.storage)
                t.desc.data = t.storage.start + (<char *>template.desc.data - template.storage.start)
            elif number >= 0:
                if number not in fresh:
                    fresh[number] = new_storage(template.storage.nbytes)
                    fnn_program_bind(self.handle, number, (<Storage>fresh[number]).start)
                t.storage = fresh[number]
                t.desc.data = t.storage.start + (<char *>template.desc.data - template.storage.start)
            results.append(t)
        return results

    cdef int settle_after(self) except -1:
        """What Python sees of a replay besides its outputs: versions, and which gradients there are."""
        for value in self.written:
            (<Storage>value).version += 1
        for leaf, before, is_set, after in self.gradients.values():
            (<TensorBase>leaf)._grad = after
        return 0

    def run(self, inputs):
        """Replays the step on other inputs of the same shapes; returns the outputs."""
        return self.replay(inputs, NULL, NULL)

    def time(self, inputs):
        """Replays the step once; returns the outputs, each call's seconds, and how many threads took part in it."""
        cdef int n = fnn_program_num_calls(self.handle)
        cdef double[::1] seconds = array.array("d", [0.0] * (n + 1))
        cdef int[::1] workers = array.array("i", [1] * (n + 1))
        return self.replay(inputs, &seconds[0], &workers[0]), list(seconds[:n]), list(workers[:n])

    cdef list replay(self, inputs, double *seconds, int *workers):
        global fnn_busy
        cdef const char *message = NULL
        cdef int k, status
        if len(inputs) != len(self.inputs):
            raise ValueError(f"capture: the program takes {len(self.inputs)} inputs, not {len(inputs)}")
        self.claim()
        try:
            for k in range(len(self.inputs)):
                fnn_program_bind(self.handle, self.inputs[k], <char *>(<TensorBase?>inputs[k]).desc.data)
            results = self.make_outputs(inputs)
            held = [(<TensorBase>value).storage for value in inputs]  # another thread may give the tensors other memory
            fnn_busy += 1
            with nogil:
                if seconds:
                    status = fnn_program_time(self.handle, seconds, workers, &message)
                else:
                    status = fnn_program_run(self.handle, &message)
            fnn_busy -= 1
        finally:
            self.release()
        if status != FNN_OK:
            raise EXCEPTIONS[status](message.decode("utf-8", "replace"))
        self.settle_after()
        for k in self.written_inputs:
            (<TensorBase>inputs[k]).storage.version += 1
        return results

    def run_some(self, TensorBase moving not None, Py_ssize_t runs, Py_ssize_t first=0):
        """Replays a step of one input on consecutive stretches of the dense tensor `moving`, for at most 50 ms.

        Returns how many of the `runs` stretches are done; `first` is the number of the first one in messages.
        """
        global fnn_busy
        cdef const char *message = NULL
        if len(self.inputs) != 1 or runs < 1:
            raise ValueError(f"capture: the program takes {len(self.inputs)} inputs, not 1, or runs is {runs}")
        cdef int status, number = self.inputs[0]
        cdef Py_ssize_t done = 0, step = moving.nbytes // runs
        self.claim()
        try:
            outputs = self.make_outputs([moving])  # every run writes them; nobody reads them
            held = moving.storage
            fnn_busy += 1
            with nogil:
                status = fnn_program_run_many(self.handle, number, <char *>moving.desc.data, step, runs, 0.05, &done, &message)
            fnn_busy -= 1
        finally:
            self.release()
        self.settle_after()
        if status != FNN_OK:
            raise EXCEPTIONS[status](f"batch {first + done}: " + message.decode("utf-8", "replace"))
        return done

    @property
    def written_bytes(self):
        """Bytes of everything lasting that the program changes."""
        return sum([(<Storage>s).nbytes for s in self.written])

    def snapshot(self):
        """Copies of everything lasting that the program changes; for `restore`."""
        cdef Storage storage
        copies = [(s, (<Storage>s).start[:(<Storage>s).nbytes]) for s in self.written
                  if (<Storage>s).serial < self.first_serial]  # the others an eager step makes anew
        for number in self.random_counts:
            storage = self.lasting(number)
            if storage is not None:
                copies.append((storage, storage.start[:storage.nbytes]))
        return copies, [(leaf, (<TensorBase>leaf)._grad) for leaf, _, _, _ in self.gradients.values()]

    def restore(self, state):
        """Puts everything back as it was at `snapshot`."""
        cdef Storage storage
        cdef bytes content
        copies, gradients = state
        for storage, content in copies:
            memcpy(storage.start, <char *>content, storage.nbytes)
        for leaf, gradient in gradients:
            (<TensorBase>leaf)._grad = gradient


def new_arena(size_t nbytes):
    """Memory for programs' temporaries."""
    return new_storage(nbytes)
