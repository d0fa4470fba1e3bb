"""What several ranks cost: the all-reduce against its model, and training steps against one process and PyTorch."""
