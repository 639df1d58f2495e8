"""How rates and weights change with the step: pure functions of the step alone."""


def rise(step: int, steps: int, share: float) -> float:
    """Return a factor that rises evenly to 1 over the first ``share`` of ``steps``."""
    length = share * steps
    return min(1.0, (step + 1) / length) if length >= 1 else 1.0


def fall(step: int, steps: int, share: float) -> float:
    """Return a factor that falls evenly from 1 towards 0 over the last ``share`` of ``steps``."""
    length = share * steps
    return min(1.0, (steps - step) / length) if length >= 1 else 1.0
