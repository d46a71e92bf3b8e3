"""What all tests share: hypothesis without deadlines, as a loaded machine is no fault of the code, and repeatable."""

from hypothesis import settings

settings.register_profile("landing", deadline=None, derandomize=True)
settings.load_profile("landing")
