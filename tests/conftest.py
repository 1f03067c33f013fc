"""What all tests start from: one thread, and everything registered under the scope of this project."""
import torch

from vop_mm.utils import register_all_modules

torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other
register_all_modules()
