"""Data-parallel training over processes, by MPI: ``mpiexec -n 4 python train.py``, on one machine or many.

The names are those of ``torch.distributed``. All processes run the same script; the first call of anything here makes them one world
(all of them have to get there). Without a launcher the world is one process, everything here gives back what it was given, and
mpi4py is not needed; with one, ``pip install 'fastnn[mpi]'`` brings mpi4py, which uses a cluster's own MPI or one from PyPI
(``pip install mpich``).

Results: sums are made in rank order, by the same additions on all ranks. So all ranks hold the same bits, and one world size gives
the same bits every time, whatever the MPI and the number of threads and of machines, which have to run one instruction set. Another
world size or another instruction set rounds differently.

A process that fails ends all others. So does one that ends, or calls something else, while others wait for it: every call here
compares with the other ranks what they call, and on what. Do not catch errors of one rank alone and go on.

Processes on one machine share its cores: each takes its part, unless FASTNN_NUM_THREADS, OMP_NUM_THREADS or `set_num_threads` say more.
"""

from .collectives import all_gather, all_reduce, barrier, broadcast
from .loader import DistributedDataLoader
from .parallel import DistributedDataParallel
from .world import abort, get_rank, get_world_size, is_available

__all__ = ["DistributedDataLoader", "DistributedDataParallel", "abort", "all_gather", "all_reduce", "barrier", "broadcast", "get_rank",
           "get_world_size", "is_available"]
