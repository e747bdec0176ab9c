"""fastnn.distributed: a world of one in this process, worlds of several under mpiexec."""

import subprocess
import sys

import mpi
import numpy as np
import pytest

import fastnn
from fastnn import distributed as dist
from fastnn import nn, optim, threads
from fastnn.distributed import loader as loaders
from fastnn.distributed.world import launched_size

MODEL = """
rng = np.random.default_rng(0)
x, y = rng.normal(size=(96, 20)).astype(np.float32), rng.integers(0, 5, 96)
def make():
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
"""


# ---- a world of one --------------------------------------------------------------------------------------------------------

def test_a_world_of_one_gives_back_what_it_gets():
    assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
    dist.barrier()
    for op in ("sum", "mean", "product", "max", "min"):
        x = fastnn.tensor([[1.0, -2.0], [np.nan, 4.0]])
        assert dist.all_reduce(x, op) is x and np.array_equal(x, [[1, -2], [np.nan, 4]], equal_nan=True)
    assert dist.broadcast(x) is x
    (alone,) = dist.all_gather(x)
    assert alone is not x and not alone.shares_storage(x) and np.array_equal(alone, x, equal_nan=True)


def test_a_world_of_one_needs_no_mpi4py():
    code = ("import sys; sys.modules['mpi4py'] = None\nimport fastnn\nfastnn.distributed.barrier()\n"
            "assert fastnn.distributed.get_world_size() == 1 and 'mpi4py.MPI' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_launched_process_without_mpi4py_is_told_the_pip_command(monkeypatch):
    code = "import sys; sys.modules['mpi4py'] = None\nimport fastnn\nfastnn.distributed.get_rank()"
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "started as one of 4 needs the package 'mpi4py'" in done.stderr
    assert "pip install 'fastnn[mpi]'" in done.stderr


def test_mpi4py_without_an_mpi_is_told(monkeypatch):
    code = ("import sys\nclass Finder:\n    def find_spec(self, name, *_):\n        if name == 'mpi4py.MPI':\n"
            "            raise RuntimeError('cannot load MPI library')\nimport types; sys.modules['mpi4py'] = types.ModuleType('mpi4py')\n"
            "sys.modules['mpi4py'].__path__ = []\nsys.meta_path.insert(0, Finder())\nimport fastnn\nfastnn.distributed.get_rank()")
    monkeypatch.setenv("PMI_SIZE", "4")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ImportError: a process that was started as one of 4 needs an MPI, and mpi4py finds no library" in done.stderr


@pytest.mark.parametrize(("environment", "size"), [
    ({}, 1), ({"PMI_SIZE": "3", "PMI_RANK": "0"}, 3), ({"OMPI_COMM_WORLD_SIZE": "2"}, 2), ({"SLURM_STEP_NUM_TASKS": "8"}, 8),
    ({"SLURM_NTASKS": "8"}, 1), ({"SLURM_STEP_NUM_TASKS": "1"}, 1), ({"PMIX_RANK": "0"}, 0), ({"PMI_SIZE": "what"}, 1),
    ({"MV2_COMM_WORLD_SIZE": "5"}, 5), ({"PMIX_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, 1)])
def test_launchers_are_known_by_their_environment(environment, size):
    assert launched_size(environment) == size


def test_what_is_wrong_is_told():
    x = fastnn.ones(2)
    with pytest.raises(ValueError, match="all_reduce: op is 'avg', but must be one of 'sum', 'mean', 'product', 'max', 'min'"):
        dist.all_reduce(x, "avg")
    with pytest.raises(TypeError, match="all_reduce: op is 'mean', but a tensor of int64 has sum, product, max and min"):
        dist.all_reduce(fastnn.tensor([1, 2]), "mean")
    with pytest.raises(TypeError, match="all_reduce: op is 'sum', but a tensor of bool has max and min"):
        dist.all_reduce(fastnn.tensor([True]), "sum")
    with pytest.raises(ValueError, match="broadcast: src is 1, but must be a rank, at least 0 and below 1"):
        dist.broadcast(x, 1)
    for call in (dist.all_reduce, dist.broadcast, dist.all_gather):
        with pytest.raises(TypeError, match=f"{call.__name__}: input"):
            call(np.ones(2))
    with pytest.raises(TypeError, match="DistributedDataParallel: model is a function"):
        dist.DistributedDataParallel(lambda x: x)
    with pytest.raises(ValueError, match="model has lazy layers"):
        dist.DistributedDataParallel(nn.LazyLinear(2))
    with pytest.raises(TypeError, match="call the model itself"):
        dist.DistributedDataParallel(nn.Linear(2, 2))(x)
    with pytest.raises(ValueError, match="batch_size"):
        dist.DistributedDataLoader(np.ones((4, 1)), batch_size=0)
    with pytest.raises(SystemExit, match="3"):
        dist.abort("enough", 3)


@pytest.mark.parametrize("n", [1, 7, 8, 12, 17])
@pytest.mark.parametrize("drop_last", [False, True])
def test_one_rank_has_the_batches_of_a_loader(n, drop_last):
    x = np.arange(n, dtype=np.float32)
    for shuffle in (False, True):
        batches = []
        for kind in (fastnn.data.DataLoader, dist.DistributedDataLoader):
            fastnn.manual_seed(3)
            loader = kind(x, 4, shuffle, drop_last=drop_last)
            batches.append([[b.tolist() for b, in loader] for _ in range(2)])
            assert len(batches[-1][0]) == len(loader) and sum(map(len, batches[-1][0])) == loader.samples
        assert batches[0] == batches[1]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("n", [1, 14, 15, 30, 44, 61])
def test_ranks_share_the_rows_of_every_batch(size, n, monkeypatch):
    """Batch by batch the ranks have, together, the rows that one process has; at most size - 1 of a pass are left out."""
    x, batch_size = np.arange(n, dtype=np.float32), 15 if size != 2 else 14
    fastnn.manual_seed(8)
    alone = [b.tolist() for b, in fastnn.data.DataLoader(x, batch_size, True)]
    parts = []
    for rank in range(size):
        monkeypatch.setattr(loaders, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(loaders, "get_world_size", lambda: size)
        fastnn.manual_seed(8)
        parts.append([b.tolist() for b, in dist.DistributedDataLoader(x, batch_size, True)])
    assert len({tuple(map(len, part)) for part in parts}) == 1  # equal numbers of equal batches
    together = [sum(batch, []) for batch in zip(*parts)]
    for wanted, given in zip(alone, together):
        assert given == wanted[:len(given)] and len(wanted) - len(given) < size
    assert sum(map(len, alone)) - sum(map(len, together)) < size


def test_average_gradients_of_one_changes_nothing():
    model = nn.Linear(3, 2)
    replicas = dist.DistributedDataParallel(model)
    model(fastnn.ones(4, 3)).sum().backward()
    gradient = model.weight.grad
    before = gradient.numpy().copy()
    replicas.average_gradients()
    assert model.weight.grad is gradient and np.array_equal(gradient, before)


def test_halves_of_a_captured_step_are_the_whole():
    def train(halves):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 2))
        optimizer = optim.Adam(model.parameters())
        replicas = dist.DistributedDataParallel(model)

        def first(x):
            loss = model(x).square().mean()
            loss.backward()
            if halves:
                replicas.pack()
                replicas.drop()
            return loss

        def second():
            if halves:
                replicas.unpack()
            optimizer.step()
            optimizer.zero_grad()

        one, two = (fastnn.capture(f, verify=True) if halves else f for f in (first, second))
        for _ in range(8):
            replicas.follow()
            one(fastnn.randn(6, 5))
            assert replicas.reduce(0.5, 2).tolist() == [[0.5, 2]]
            two()
        assert not halves or (one.obstacle is two.obstacle is None and min(one.replays, two.replays) >= 4)
        return [t.tolist() for t in model.state_dict().values()]

    assert train(True) == train(False)


def test_processes_on_one_machine_share_its_cores(monkeypatch):
    for reason, wanted in (("8 cores", 8 // 3), ("FASTNN_NUM_THREADS=8", None), ("OMP_NUM_THREADS=8", None), ("set_num_threads(8)", None)):
        taken = []
        monkeypatch.setattr(threads, "threads_reason", lambda reason=reason: reason)
        monkeypatch.setattr(threads, "get_num_threads", lambda: 8)
        monkeypatch.setattr(threads, "set_num_threads", taken.append)
        threads.take_share(1)
        assert taken == []
        threads.take_share(3)
        assert taken == ([] if wanted is None else [wanted])
        threads.take_share(100)
        assert taken[1:] == ([] if wanted is None else [1])


# ---- several ranks ---------------------------------------------------------------------------------------------------------

@mpi.needs_mpi
@pytest.mark.parametrize("n", [2, 3])
def test_tensors_are_combined_in_rank_order(n, tmp_path):
    ranks = mpi.reports("""
        values = {}
        for count in (0, 1, 7, 30_001, 600_001):  # one exchange, two with a rest, several pieces
            x = np.random.default_rng(rank).normal(size=count).astype(np.float32) * 1e3
            for op in ("sum", "mean", "max", "min", "product"):
                t = fastnn.tensor(x)
                seen = t.numpy()
                assert dist.all_reduce(t, op) is t and (count == 0 or np.shares_memory(seen, t.numpy()))
                values[f"{op}{count}"] = t.numpy()
        for dtype in ("float64", "int64", "int32", "uint8"):
            values[dtype] = dist.all_reduce(fastnn.tensor(np.arange(5).astype(dtype) + rank)).numpy()
        values["bool"] = dist.all_reduce(fastnn.tensor([rank == 0, False, True]), "min").numpy()
        values["turned"] = dist.all_reduce(fastnn.arange(6).reshape(2, 3).T + rank).numpy()
        values["scalar"] = dist.all_reduce(fastnn.tensor(rank + 1.0)).numpy()
        image = fastnn.nn.Conv2d(1, 2, 1)(fastnn.ones(1, 1, 2, 2)).detach().fill_(rank)
        image[0, 1, 0, 1] = 7.0 + rank
        values["image"] = dist.broadcast(image, src=1).numpy()
        values["gathered"] = np.stack([t.numpy() for t in dist.all_gather(fastnn.tensor([[rank, 2]]))])
        report(**values)
    """, tmp_path, n)
    for count in (0, 1, 7, 30_001, 600_001):
        parts = [np.random.default_rng(k).normal(size=count).astype(np.float32) * np.float32(1e3) for k in range(n)]
        for op, combine in (("sum", np.add), ("max", np.maximum), ("min", np.minimum), ("product", np.multiply), ("mean", np.add)):
            wanted = combine(parts[0], parts[1])
            for part in parts[2:]:
                wanted = combine(wanted, part)
            wanted = wanted / np.float32(n) if op == "mean" else wanted
            for rank in ranks:
                assert rank[f"{op}{count}"].dtype == np.float32 and rank[f"{op}{count}"].tobytes() == wanted.tobytes()
    for rank in ranks:
        for dtype in ("float64", "int64", "int32", "uint8"):
            assert rank[dtype].dtype == dtype and rank[dtype].tolist() == [n * k + sum(range(n)) for k in range(5)]
        assert rank["bool"].tolist() == [False, False, True]
        assert np.array_equal(rank["turned"], np.arange(6).reshape(2, 3).T * n + sum(range(n)))
        assert rank["scalar"].shape == () and rank["scalar"] == sum(range(1, n + 1))
        assert np.array_equal(rank["image"], [[[[1, 1], [1, 1]], [[1, 8], [1, 1]]]])
        assert rank["gathered"].tolist() == [[[k, 2]] for k in range(n)]


@mpi.needs_mpi
@pytest.mark.parametrize("n", [2, 3])
def test_averaged_gradients_are_the_full_batch_s(n, tmp_path):
    script = MODEL.replace("nn.BatchNorm1d(32), ", "") + """
fastnn.manual_seed(rank)  # the weights become rank 0's
model = make()
replicas = dist.DistributedDataParallel(model)
part = slice(rank * 96 // size, (rank + 1) * 96 // size)
F.cross_entropy(model(fastnn.tensor(x[part])), fastnn.tensor(y[part])).backward()
model[2].bias.grad = model[2].bias.grad if rank else None  # as if it had not been used here
own = [p.grad.numpy().copy() if p.grad is not None else np.zeros(p.shape, np.float32) for p in model.parameters()]
replicas.average_gradients()
averaged = [p.grad.numpy().copy() for p in model.parameters()]
for p in model.parameters():
    p.grad = None
F.cross_entropy(model(fastnn.tensor(x)), fastnn.tensor(y)).backward()
full = [p.grad.numpy() for p in model.parameters()]
report(**{f"own{k}": g for k, g in enumerate(own)}, **{f"averaged{k}": g for k, g in enumerate(averaged)},
       **{f"full{k}": g for k, g in enumerate(full)})
"""
    ranks = mpi.reports(script, tmp_path, n)
    for k in range(4):
        wanted = ranks[0][f"own{k}"] + ranks[1][f"own{k}"]
        for rank in ranks[2:]:
            wanted = wanted + rank[f"own{k}"]
        wanted = wanted / np.float32(n)
        for rank in ranks:
            assert rank[f"averaged{k}"].tobytes() == wanted.tobytes()
            if k < 3:
                np.testing.assert_allclose(rank[f"full{k}"], wanted, rtol=1e-5, atol=1e-7)


@mpi.needs_mpi
@pytest.mark.parametrize("captured", [False, True])
def test_replicas_stay_alike_and_train_as_one_process(captured, tmp_path):
    script = MODEL.replace("nn.BatchNorm1d(32), ", "") + f"""
fastnn.manual_seed(4)
model = make()
replicas = dist.DistributedDataParallel(model)
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

def first(x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss

def second():
    optimizer.step()
    optimizer.zero_grad()

if {captured}:
    first, second = fastnn.capture(first), fastnn.capture(second)
for epoch in range(4):
    for batch in dist.DistributedDataLoader((x, y), batch_size=12, shuffle=True):
        first(*batch)
        replicas.average_gradients()
        second()
if {captured}:
    assert first.obstacle is second.obstacle is None and min(first.replays, second.replays) > 20
report(weights=weights(model), threads=fastnn.get_num_threads(), drawn=fastnn.rand(3), seed=fastnn.initial_seed())
"""
    alone = mpi.reports(script, tmp_path, 0)[0]["weights"]
    seen = {}
    for n in (2, 3):
        ranks = mpi.reports(script, tmp_path, n)
        assert len({rank["weights"].tobytes() for rank in ranks}) == 1
        assert len({rank["drawn"].tobytes() for rank in ranks}) == n
        assert [rank["seed"] for rank in ranks] == [4 + k for k in range(n)]
        np.testing.assert_allclose(ranks[0]["weights"], alone, rtol=1e-4, atol=1e-5)
        seen[n] = ranks[0]["weights"].tobytes()
    assert mpi.reports(script, tmp_path, 2)[0]["weights"].tobytes() == seen[2]  # from run to run
    assert mpi.reports(script, tmp_path, 1)[0]["weights"].tobytes() == alone.tobytes()


@mpi.needs_mpi
@pytest.mark.parametrize(("script", "message"), [
    ("dist.all_reduce(fastnn.ones(2 + rank))",
     "rank 0 calls all_reduce with float32 (2,), op sum, and rank 1 calls all_reduce with float32 (3,), op sum"),
    ("dist.all_reduce(fastnn.ones(2), 'sum' if rank else 'max')", "op max, and rank 1 calls all_reduce with float32 (2,), op sum"),
    ("dist.barrier() if rank else dist.broadcast(fastnn.ones(2))",
     "rank 0 calls broadcast with float32 (2,), src 0, and rank 1 calls barrier"),
    ("dist.DistributedDataParallel(nn.Linear(3, 2 + rank))", "where rank 0 has weight: float32 (2, 3), rank 1 has weight: float32 (3, 3)"),
    ("dist.DistributedDataParallel(nn.Sequential(nn.Linear(3, 2), *[nn.ReLU(), nn.Linear(2, 2)][:2 * rank]))",
     "where rank 0 has none, rank 1 has 2.weight: float32 (2, 2)"),
    ("dist.DistributedDataParallel(nn.Linear(3, 2).requires_grad_(rank == 0))", "rank 1 has weight: float32 (2, 3), frozen"),
    ("dist.DistributedDataLoader(np.zeros((4 + rank, 2)), 2)",
     "rank 0 calls DistributedDataLoader with 4 samples, batch_size 2, and rank 1 calls DistributedDataLoader with 5 samples"),
    ("from fastnn import _core; _core.set_isa('scalar') if rank else None; dist.DistributedDataParallel(nn.Linear(3, 2))",
     "and rank 1 calls DistributedDataParallel with instruction set scalar (FASTNN_ISA sets it)"),
    ("dist.DistributedDataLoader(np.zeros((4, 2)), 3)", "batch_size is 3, but must be a multiple of the 2 ranks"),
    ("dist.barrier() if rank else None", "rank 0 ends its program, and rank 1 calls barrier"),
    ("sys.exit(0) if rank else dist.all_reduce(fastnn.ones(2))", "rank 1 ends its program"),
    ("1 / rank; dist.barrier()", "ZeroDivisionError on rank 0 of 2: all ranks are ended"),
    ("dist.abort('enough of it') if rank else dist.barrier()", "fastnn.distributed: enough of it"),
])
def test_ranks_that_do_not_agree_are_ended_with_the_reason(script, message, tmp_path):
    done = mpi.run(script if script.endswith("None") else f"{script}\nreport(end=1)", tmp_path, 2)
    assert done.status != 0 and message in done.errors, done.errors
    assert done.ranks == []


@mpi.needs_mpi
def test_a_launcher_of_another_mpi_is_noticed(tmp_path):
    done = mpi.run("report(end=1)", tmp_path, 0, {"OMPI_COMM_WORLD_SIZE": "2"})
    assert "was started as one of 2, but mpi4py's MPI" in done.errors and "sees only this one" in done.errors and done.ranks == []


@mpi.needs_mpi
@pytest.mark.parametrize("variable", ["FASTNN_NUM_THREADS", "OMP_NUM_THREADS"])
def test_threads_that_the_user_asks_for_stay(variable, tmp_path):
    done = mpi.run("report(threads=fastnn.get_num_threads())", tmp_path, 2, {variable: "3"})
    assert [rank["threads"] for rank in done.ranks] == [3, 3]
