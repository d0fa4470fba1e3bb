"""What ``bench/on_gpu.sh`` measures beyond the other commands, and the table that it ends with."""
