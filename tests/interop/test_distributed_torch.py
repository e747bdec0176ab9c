"""Averaged gradients beside torch.distributed's: DistributedDataParallel over gloo, in the same processes."""

import mpi
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = [mpi.needs_mpi, pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")]


@pytest.mark.parametrize("n", [2, 3])
def test_steps_are_those_of_ddp(n, tmp_path):
    ranks = mpi.reports("""
        import torch
        import torch.distributed as td
        torch.set_num_threads(1)
        td.init_process_group("gloo", init_method="file:///" + str(__import__("pathlib").Path("store").resolve()).lstrip("/"), rank=rank,
                              world_size=size)
        theirs = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))
        ours = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))  # other weights on each rank
        replicas = dist.DistributedDataParallel(ours)
        theirs.load_state_dict({name: torch.from_numpy(t.numpy(force=True).copy()) for name, t in ours.state_dict().items()})
        ddp = torch.nn.parallel.DistributedDataParallel(theirs)
        rng = np.random.default_rng(rank)
        one, two = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
        for step in range(6):
            x, y = rng.normal(size=(8, 6)).astype(np.float32), rng.integers(0, 3, 8)
            F.cross_entropy(ours(fastnn.tensor(x)), fastnn.tensor(y)).backward()
            replicas.average_gradients()
            torch.nn.functional.cross_entropy(ddp(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            for optimizer in (one, two):
                optimizer.step()
                optimizer.zero_grad()
        summed, same = torch.full((3,), rank + 0.5), fastnn.full((3,), rank + 0.5)
        td.all_reduce(summed)
        dist.all_reduce(same)
        report(ours=weights(ours), theirs=np.concatenate([t.detach().numpy().ravel() for t in theirs.state_dict().values()]),
               summed=summed.numpy(), same=same.numpy())
        td.destroy_process_group()
    """, tmp_path, n)
    for rank in ranks:
        assert rank["ours"].tobytes() == ranks[0]["ours"].tobytes()
        np.testing.assert_allclose(rank["ours"], rank["theirs"], rtol=1e-5, atol=1e-6)
        assert np.array_equal(rank["summed"], rank["same"])
