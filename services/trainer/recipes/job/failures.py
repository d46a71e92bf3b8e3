"""Why a recipe ended badly, as a reason and one sentence; knows no job and prints nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """`reason` is BAD_INPUT, OUT_OF_MEMORY, DIVERGED or INTERNAL; `message` a sentence, no row content."""

    reason: str
    message: str


class RecipeError(Exception):
    """A failure the recipe itself can explain; its text is shown to the user as it stands."""

    reason = "INTERNAL"


class BadInput(RecipeError):
    """The spec, the rows or the base cannot be trained on."""

    reason = "BAD_INPUT"


class Diverged(RecipeError):
    """The loss or the gradient is no longer a finite number."""

    reason = "DIVERGED"


def explain(error: BaseException) -> Failure:
    """The failure a user is told; texts of foreign exceptions may hold row content and stay in the log."""
    if isinstance(error, RecipeError):
        return Failure(error.reason, str(error))
    if _is_out_of_memory(error):
        return Failure("OUT_OF_MEMORY", "Training ran out of memory; lower batch_size or max_length.")
    kind = type(error).__name__
    return Failure("INTERNAL", f"The recipe failed unexpectedly ({kind}); the job's log has the traceback.")


def _is_out_of_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError by name, so that this file needs no torch; CPU torch raises a bare RuntimeError
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
