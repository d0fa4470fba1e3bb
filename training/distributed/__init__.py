"""Train one model on several devices or machines: data parallel over MPI, and NCCL between GPUs.

One process has one device and is one rank. Each rank computes its share of every batch; the gradients are summed over
all ranks while backward computes them, and all ranks make the same update. ``Trainer(..., ranks=Ranks.join())`` is all
that a program needs, started by ``mpirun -n 4 python program.py``; ``mpirun -n 4 xpnet train`` does so by itself.

What n ranks compute is what one process computes with the same batches in n parts (``Trainer(parts=n)``, or ``xpnet
train --accumulate n``): bit for bit for two ranks, where a sum has only one order, and within rounding for more. It is
what one process computes with the batches whole, within rounding: kernels add up a whole batch in another order.
"""
