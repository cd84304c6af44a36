"""One thread for every process of the tests: two cores are shared by several of them."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("clowder", deadline=None)  # the machine's load is no property of the code
settings.load_profile("clowder")
