"""One thread for each test process: tiny networks lose more to threads than they win, and results stay the same on every machine."""

import torch

torch.set_num_threads(1)
