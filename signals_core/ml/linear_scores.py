"""Probabilities from linear scores, and how well they fit: what calibrators and the logistic regression share."""

import numpy as np

EPSILON = 1e-6
"""Probabilities are kept so far from 0 and 1 before their logarithm is taken."""


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """log(p) of the same shape, finite."""
    return np.log(np.clip(probabilities, EPSILON, 1))


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of the same shape, finite."""
    clipped = np.clip(probabilities, EPSILON, 1 - EPSILON)
    return np.log(clipped / (1 - clipped))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-score))."""
    return 1 / (1 + np.exp(-scores))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities (n, k) that sum to one, from scores (n, k) of any size."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def softmax_loss(scores: np.ndarray, happened: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean log-loss of softmax, and its gradient by the scores (n, k), already divided by n.

    Args:
        happened: (n, k), 1 for the class that did.
    """
    probabilities = softmax(scores)
    value = -np.log(np.maximum((probabilities * happened).sum(axis=1), EPSILON**2)).mean()
    return float(value), (probabilities - happened) / len(happened)


def sigmoid_loss(scores: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean log-loss of sigmoid against targets in 0..1 (n,), and its gradient by the scores, divided by n."""
    value = (np.logaddexp(0, scores) - wanted * scores).mean()
    return float(value), (sigmoid(scores) - wanted) / len(wanted)


def prior_loss(away: np.ndarray, spread: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the log of a prior and its gradient: normal near 0, exponential beyond one spread (pseudo-Huber).

    What is grossly away is not pulled back the harder for it.
    """
    root = np.sqrt(1 + (away / spread) ** 2)
    return float((root - 1).sum()), away / spread**2 / root


def fit_sigmoid(
    away: np.ndarray, happened: np.ndarray, neutral: float, spread: np.ndarray, weight: float
) -> tuple[float, float]:
    """Slope (at least 0) and bias of P(happened) = sigmoid(neutral + slope * away + bias), after Platt (1999).

    Args:
        away: (n,) log-odds of the forecast, less `neutral`.
        spread: (2,) of the prior around 1 and 0.
        weight: of the prior, against the mean log-loss.
    """
    from scipy.optimize import minimize

    # Platt's targets: what happened n times is not certain at the edge of the data.
    positives = int(happened.sum())
    wanted = np.where(happened, (positives + 1) / (positives + 2), 1 / (len(happened) - positives + 2))
    start = np.array([1.0, 0.0])

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, residual = sigmoid_loss(neutral + x[0] * away + x[1], wanted)
        prior, pull = prior_loss(x - start, spread)
        return value + weight * prior, np.array([residual @ away, residual.sum()]) + weight * pull

    solution = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(solution.x[0]), float(solution.x[1])
